"""Building blocks of pages: headings, captions, figures, facts and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st


def heading(text: str) -> None:
    """Show a section heading."""
    st.html(f'<h2 class="dl-heading">{escape(text)}</h2>')


def aside(text: str) -> None:
    """Show a caption in muted text."""
    st.html(f'<p class="dl-aside">{escape(text)}</p>')


def figures(entries: dict[str, tuple[str, str]]) -> None:
    """Show a row of figures: name → (figure, text under it)."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(figure)}<small>{escape(words)}</small></dd></div>"
        for name, (figure, words) in entries.items()
    )
    st.html(f'<dl class="dl-figures">{cells}</dl>')


def facts(entries: dict[str, str]) -> None:
    """Show a list of facts: name → text."""
    cells = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items()
    )
    st.html(f'<dl class="dl-quality">{cells}</dl>')


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a small table of text; a wide one scrolls horizontally."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    st.html(
        f'<div class="dl-stages" role="region" tabindex="0" aria-label="{escape(name)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
