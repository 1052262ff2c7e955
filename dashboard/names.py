"""Names of classes, examples and files, shortened and escaped for display."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

LONGEST = 60


def short(text: object) -> str:
    """Shorten a name to LONGEST characters."""
    name = str(text)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def file_of(example: Mapping[Hashable, Any]) -> str | None:
    """The file of a picture, below the source; None if it has none."""
    file = example.get("file")
    return str(file) if isinstance(file, str) and file else None


def with_file(example: Mapping[Hashable, Any]) -> str:
    """The id of an example, and its file where that is another name."""
    file, id_ = file_of(example), str(example["id"])
    return id_ if file in (None, id_) else f"{id_} ({file})"


def plain(text: object) -> str:
    """Shorten and escape a name for a Streamlit label, which reads `*` or `:red[` as markup."""
    return re.sub(r"(^[-+=]|[\\`*_{}\[\]()#:~<>$&|!])", r"\\\1", short(text))
