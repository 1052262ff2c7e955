"""Names of classes, examples and files, cut and escaped so that they fit where they are shown."""

from __future__ import annotations

import re

LONGEST = 60


def short(text: object) -> str:
    """A name short enough for a sentence."""
    words = str(text)
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def plain(text: object) -> str:
    """A name for a label of Streamlit's, which would take `*` or `:red[` for markup."""
    return re.sub(r"(^[-+=]|[\\`*_{}\[\]()#:~<>$&|!])", r"\\\1", short(text))
