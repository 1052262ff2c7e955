"""HTML of a text whose tokens are shaded by their share of a score.

Blue supports and orange opposes. The strongest tokens are underlined, solid or dashed, and each
token's number is in its tooltip; on demand it stands above the token. So nothing needs color.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dashboard.parts.text.shown_text import LONGEST, Span
from engine.store.quantities import SCORE
from engine.store.text import visible

STRONGEST = 3
"""Tokens of each sign that are underlined and listed."""
LEAST = 0.1
"""Share of the largest token below which none is called strong."""
LEAST_NUMBERED = 0.02
"""Share of the largest token below which a number would only be noise."""


@dataclass(frozen=True)
class ShadedText:
    """A text and how a score is split over it.

    Attributes:
        text: As it is in the data.
        pieces: (where it is in the text, its share) of each token that is in the text, in order.
        special: Share of tokens that are not in the text, such as [CLS].
        whole: Share that belongs to no single token.
        unread: Whether the model did not read the end of the text.
    """

    text: str
    pieces: tuple[tuple[Span, float], ...]
    special: float
    whole: float
    unread: bool

    @property
    def largest(self) -> float:
        return max((abs(share) for _, share in self.pieces), default=0.0)


def shaded_text(text: str, spans: Sequence[Span], shares: np.ndarray, whole: float) -> ShadedText:
    """Put shares next to the tokens of a text.

    Args:
        spans: Where the token of each position is; empty for special tokens. Positions after
            the last span are padding.
        shares: One for each position.
    """
    pieces: list[tuple[Span, float]] = []
    special = float(shares[len(spans) :].sum())
    last = 0
    for (start, stop), share in zip(spans, shares.tolist(), strict=False):
        start = max(start, last)
        if start < stop:
            pieces.append(((start, stop), share))
            last = stop
        elif pieces and stop > 0:  # one character that several tokens spell together
            pieces[-1] = pieces[-1][0], pieces[-1][1] + share
        else:
            special += share
    unread = any(letter.isalnum() for letter in text[last:])
    return ShadedText(text, tuple(pieces), special, whole, unread)


def strongest(shaded: ShadedText) -> dict[int, int]:
    """Numbers of the strongest pieces → their sign."""
    found: dict[int, int] = {}
    for sign in (1, -1):
        order = sorted(range(len(shaded.pieces)), key=lambda n: -sign * shaded.pieces[n][1])
        for number in order[:STRONGEST]:
            if sign * shaded.pieces[number][1] > LEAST * shaded.largest > 0:
                found[number] = sign
    return found


def shading_html(shaded: ShadedText, scale: float, numbers: bool, title: str) -> str:
    """The text with its tokens shaded.

    Args:
        scale: The share with the darkest shade, the same for both texts of a pair.
        numbers: Whether numbers stand above the tokens.
        title: Of the text; for screen readers, too.
    """
    strong = strongest(shaded)
    parts = []
    last = 0
    for number, ((start, stop), share) in enumerate(shaded.pieces):
        if start >= LONGEST:
            break
        parts.append(escape(visible(shaded.text[last:start])))
        word = escape(visible(shaded.text[start:stop]))
        parts.append(_token(word, share, scale, strong.get(number), numbers))
        last = stop
    rest = escape(visible(shaded.text[last:LONGEST]))
    if rest.strip() and shaded.unread:
        rest = f'<span class="dl-unread" title="Not read by the model">{rest}</span>'
    kind = "dl-text dl-tokens dl-numbered" if numbers else "dl-text dl-tokens"
    return (
        f'<figure class="dl-shaded"><figcaption>{title}</figcaption>'
        f'<blockquote dir="auto" class="{kind}" tabindex="0">{"".join(parts)}{rest}</blockquote>'
        f"{_summary(shaded, strong)}</figure>"
    )


def _token(word: str, share: float, scale: float, sign: int | None, numbers: bool) -> str:
    effect = "supports" if share > 0 else "opposes"
    depth = min(1.0, abs(share) / scale) if scale else 0.0
    amount = SCORE.text(share)
    strong = f' data-strong="{"+" if sign > 0 else "−"}"' if sign else ""
    shown = word
    if numbers and depth >= LEAST_NUMBERED:
        shown = f'<ruby>{word}<rt dir="ltr">{amount}</rt></ruby>'
    return (
        f'<span class="dl-token" data-sign="{effect}"{strong} style="--share:{depth:.3f}" '
        f'title="{effect}: {amount}">{shown}</span>'
    )


def _summary(shaded: ShadedText, strong: dict[int, int]) -> str:
    """The strongest tokens as text, and what belongs to no token."""
    unit = shaded.largest or 1.0
    listed = []
    for number in sorted(strong, key=lambda n: -abs(shaded.pieces[n][1])):
        (start, stop), share = shaded.pieces[number]
        word = escape(visible(shaded.text[start:stop])[:40])
        listed.append(f"<bdi>{word}</bdi> <b>{SCORE.text(share)}</b>")
    lines = [f"Strongest: {', '.join(listed)}."] if listed else ["No token has a share."]
    if abs(shaded.special) > 1e-3 * unit:
        lines.append(f"Special tokens: <b>{SCORE.text(shaded.special)}</b>.")
    if abs(shaded.whole) > 1e-3 * unit:
        lines.append(f"Whole text, no single token: <b>{SCORE.text(shaded.whole)}</b>.")
    if shaded.unread:
        lines.append("The model does not read the faded end.")
    return f"<p>{' '.join(lines)}</p>"
