"""The title of a page about one example."""

from __future__ import annotations

from html import escape


def title(heading: str, beside: str) -> str:
    """HTML of a heading with quieter words beside it."""
    return f'<div class="dl-title"><h1>{escape(heading)}</h1><span>{escape(beside)}</span></div>'
