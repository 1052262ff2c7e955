"""The title of a page."""

from __future__ import annotations

from html import escape


def title(heading: str, subtitle: str) -> str:
    """HTML of a heading with a muted subtitle next to it."""
    return f'<div class="dl-title"><h1>{escape(heading)}</h1><span>{escape(subtitle)}</span></div>'
