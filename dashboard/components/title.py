"""The title of a page about one example, and names cut so that they fit a sentence."""

from __future__ import annotations

from html import escape

LONGEST = 60


def title(heading: str, beside: str) -> str:
    """HTML of a heading with quieter words beside it."""
    return f'<div class="dl-title"><h1>{escape(heading)}</h1><span>{escape(beside)}</span></div>'


def short(text: object) -> str:
    """A name short enough for a sentence."""
    words = str(text)
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"
