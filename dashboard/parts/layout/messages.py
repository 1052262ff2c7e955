"""Messages shown when a page has nothing to show or something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal

import streamlit as st


def notice(title: str, words: str, kind: Literal["empty", "error"] = "empty") -> None:
    """Show a panel in place of the page."""
    st.html(
        f'<div class="dl-notice" data-kind="{kind}" role="status">'
        f"<h2>{escape(title)}</h2><p>{escape(words)}</p></div>"
    )


def warning(lines: Sequence[str]) -> None:
    """Show warning lines."""
    text = "<br>".join(escape(line) for line in lines)
    st.html(f'<div class="dl-warning" role="status">{text}</div>')
