"""The title of a page about one example, and names cut and escaped so that they fit."""

from __future__ import annotations

import re
from html import escape

LONGEST = 60


def title(heading: str, beside: str) -> str:
    """HTML of a heading with quieter words beside it."""
    return f'<div class="dl-title"><h1>{escape(heading)}</h1><span>{escape(beside)}</span></div>'


def short(text: object) -> str:
    """A name short enough for a sentence."""
    words = str(text)
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def plain(text: object) -> str:
    """A name for a label of Streamlit's, which would take `*` or `:red[` for markup."""
    return re.sub(r"(^[-+=]|[\\`*_{}\[\]()#:~<>$&|!])", r"\\\1", short(text))
