"""A text of a stranger as pages show it: one line or many, in any direction, with marks.

Everything keeps the length of the text, so that places in it stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from engine.store.text import visible

EXCERPT = 1_000
"""Most characters of a text on a card, which shows two lines until it is opened."""
LONGEST = 20_000
"""Most characters of the text that a page is about."""

Span = tuple[int, int]
"""Characters `[start, stop)` of a text."""

_ORDERS = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of what follows them."""


def in_order(name: object) -> str:
    """A name that may stand inside a sentence: nothing in it turns around what follows."""
    return _ORDERS.sub("", visible(str(name)))


def parts(text: str, marks: Sequence[Span], most: int = EXCERPT) -> list[tuple[str, bool]]:
    """The beginning of a text, cut where marks begin and end: (part, whether it is marked)."""
    shown = visible(text[:most])
    found: list[tuple[str, bool]] = []
    last = 0
    for start, stop in sorted(marks):
        start, stop = max(start, last), min(stop, most)
        if start >= stop:
            continue
        found += [(shown[last:start], False), (shown[start:stop], True)]
        last = stop
    found.append((shown[last:], False))
    return [part for part in found if part[0]]


def text_html(text: str, marks: Sequence[Span] = ()) -> str:
    """HTML of the text that a page is about, scrolled where it is long."""
    words = "".join(
        f"<mark>{escape(part)}</mark>" if marked else escape(part)
        for part, marked in parts(text, marks, LONGEST)
    )
    rest = len(text) - LONGEST
    more = f"<p>… {rest:,} more characters are not shown.</p>" if rest > 0 else ""
    scrolled = ' tabindex="0"' if len(text) > EXCERPT else ""
    return f'<blockquote dir="auto" class="dl-text"{scrolled}>{words}</blockquote>{more}'
