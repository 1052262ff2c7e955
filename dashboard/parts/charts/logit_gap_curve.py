"""The predicted logit gap of one prediction as training examples are removed, in plain HTML."""

from __future__ import annotations

from html import escape

import numpy as np

from engine.applications.brittle.supports import REQUIRED_DEVIATIONS
from engine.store.quantities import LOGIT_GAP, axis_text

TICKS = 5


def logit_gap_curve(gaps: np.ndarray, half_width: np.ndarray, k: int, flip: int) -> str:
    """HTML of the chart: the logit gap without 0 to K examples, its 95% band, and the flip.

    Args:
        gaps: The logit gap with all examples, and as predicted without the first 1 to K `[K + 1]`.
        half_width: Half widths of their intervals `[K + 1]`.
        k: The number removed in the view.
        flip: The number whose removal is predicted to flip the prediction; 0 if none here is.
    """
    low, high = gaps - half_width, gaps + half_width
    bottom, top = min(0.0, float(low.min())), max(0.0, float(high.max()))
    room = 0.06 * (top - bottom or 1.0)
    bottom, top = bottom - room, top + room
    last = len(gaps) - 1

    def across(n: float) -> float:
        return 100 * n / last

    def down(value: float) -> float:
        return 100 * (top - value) / (top - bottom)

    def edge(values: np.ndarray, shift: str = "") -> list[str]:
        return [
            f"{across(n):.2f}% calc({down(float(value)):.2f}%{shift})"
            for n, value in enumerate(values)
        ]

    band = edge(high) + edge(low)[::-1]
    stroke = edge(gaps, " - 1px") + edge(gaps, " + 1px")[::-1]
    grid = "".join(
        f'<div class="dl-tick" style="top:{down(tick):.2f}%"><span>{axis_text(tick)}</span></div>'
        for tick in _ticks(bottom, top)
    )
    zero = f'<div class="dl-zero" style="top:{down(0):.2f}%"></div>'
    marks = f'<div class="dl-cut" style="left:{across(k):.2f}%"></div>'
    marks += (
        f'<div class="dl-mark" data-style="0" style="left:{across(k):.2f}%;'
        f'top:{down(float(gaps[k])):.2f}%"></div>'
    )
    if flip:
        marks += f'<div class="dl-flip" style="left:{across(flip):.2f}%"><span>flips</span></div>'
    step = max(1, -(-last // 10))
    numbers = "".join(
        f'<span style="left:{across(n):.2f}%">{n}</span>' for n in range(0, last + 1, step)
    )
    alt = f"Without {k}: {LOGIT_GAP.text(gaps[k])}, between {LOGIT_GAP.text(low[k])} and "
    alt += f"{LOGIT_GAP.text(high[k])}. "
    alt += (
        f"Predicted to flip without {flip}." if flip else f"Not predicted to flip without {last}."
    )
    words = (
        "Logit gap: the true label's logit minus the largest other; below 0 the prediction is "
        "wrong. Band: 95% interval of the mean over models. A flip is predicted where the line is "
        f"beyond 0 by {REQUIRED_DEVIATIONS:g} standard deviations."
    )
    return (
        '<figure class="dl-curves dl-logit-gap"><figcaption><b>Predicted logit gap</b></figcaption>'
        f'<div class="dl-plot" role="img" aria-label="{escape(alt, quote=True)}">{grid}{zero}'
        f'<div class="dl-band" data-style="0" style="clip-path:polygon({",".join(band)})"></div>'
        f'<div class="dl-line" data-style="0" style="clip-path:polygon({",".join(stroke)})"></div>'
        f"{marks}</div>"
        f'<div class="dl-numbers" aria-hidden="true">{numbers}</div>'
        '<div class="dl-unit" aria-hidden="true">training examples removed</div>'
        f"<p>{escape(words)}</p></figure>"
    )


def _ticks(bottom: float, top: float) -> list[float]:
    raw = (top - bottom) / TICKS
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw)
    first, last = np.ceil(bottom / step), np.floor(top / step)
    return [float(step * place) for place in np.arange(first, last + 1)]
