"""Names of classes, examples and files, shortened and escaped for display."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

from dashboard.parts.text.shown_text import in_order

LONGEST = 60
RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)


def isolated(text: object) -> str:
    """A name that can stand in any sentence.

    Characters that change the direction of what follows are left out. A name with letters that are
    written from right to left is isolated (U+2068, U+2069), so that it turns nothing around.
    """
    name = in_order(text)
    return f"\u2068{name}\u2069" if RIGHT_TO_LEFT.search(name) else name


def short(text: object) -> str:
    """Shorten a name to LONGEST characters, so that it can stand in any sentence."""
    name = in_order(text)
    return isolated(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…")


def file_of(example: Mapping[Hashable, Any]) -> str | None:
    """The file of a picture, below the source; None if it has none."""
    file = example.get("file")
    return str(file) if isinstance(file, str) and file else None


def with_file(example: Mapping[Hashable, Any]) -> str:
    """The id of an example, and its file where that is another name."""
    file, id_ = file_of(example), str(example["id"])
    name = isolated(id_)
    return name if file is None or file == id_ else f"{name} ({isolated(file)})"


def plain(text: object) -> str:
    """Shorten and escape a name for a Streamlit label, which reads `*` or `:red[` as markup."""
    return re.sub(r"(^[-+=]|[\\`*_{}\[\]()#:~<>$&|!])", r"\\\1", short(text))
