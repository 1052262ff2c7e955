"""Names of classes, examples and files, shortened and escaped for display."""

from __future__ import annotations

import re

LONGEST = 60


def short(text: object) -> str:
    """Shorten a name to LONGEST characters."""
    name = str(text)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def plain(text: object) -> str:
    """Shorten and escape a name for a Streamlit label, which reads `*` or `:red[` as markup."""
    return re.sub(r"(^[-+=]|[\\`*_{}\[\]()#:~<>$&|!])", r"\\\1", short(text))
