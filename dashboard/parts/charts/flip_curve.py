"""The probability of a flip of one prediction as training examples are removed, in plain HTML."""

from __future__ import annotations

from html import escape

import numpy as np

from engine.store.quantities import FLIP

TICKS = (0, 0.25, 0.5, 0.75, 1)
SHOWN = 10
"""Numbers below the axis."""


def flip_curve(
    probabilities: np.ndarray, k: int, flip: int, needed: float, gap: str = "logit gap"
) -> str:
    """HTML of the chart: the probability without 0 to K examples, and where a flip is predicted.

    Args:
        probabilities: With all examples, by chance, and without the first 1 to K `[K + 1]`.
        k: The number removed in the view.
        flip: The number whose removal is predicted to flip the prediction; 0 if none here is.
        needed: The least probability at which a flip is predicted.
        gap: What is above 0 where the prediction stays (`Outcomes.gap`).
    """
    last = max(len(probabilities) - 1, 1)

    def across(n: float) -> str:
        return f"{100 * n / last:.2f}%"

    def down(value: float) -> str:
        return f"{100 * (1 - value):.2f}%"

    def edge(shift: str) -> list[str]:
        return [
            f"{across(n)} calc({down(float(value))}{shift})"
            for n, value in enumerate(probabilities)
        ]

    stroke = edge(" - 1px") + edge(" + 1px")[::-1]
    area = [*edge(""), "100% 100%", "0% 100%"]
    grid = "".join(
        f'<div class="dl-tick" style="top:{down(tick)}"><span>{100 * tick:.0f}%</span></div>'
        for tick in TICKS
    )
    marks = (
        f'<div class="dl-level" style="top:{down(needed)}">'
        f"<span>needed: {FLIP.text(needed)}</span></div>"
        f'<div class="dl-cut" style="left:{across(k)}"></div>'
        f'<div class="dl-mark" data-style="0" style="left:{across(k)};'
        f'top:{down(float(probabilities[k]))}"></div>'
    )
    if flip:
        marks += f'<div class="dl-flip" style="left:{across(flip)}"><span>flips</span></div>'
    numbers = "".join(
        f'<span style="left:{across(n)}">{n}</span>'
        for n in range(0, last + 1, max(1, -(-last // SHOWN)))
    )
    alt = f"Without {k}: {FLIP.text(probabilities[k])}. With all, by chance alone: "
    alt += f"{FLIP.text(probabilities[0])}. "
    alt += (
        f"Predicted to flip without {flip}." if flip else f"Not predicted to flip without {last}."
    )
    return (
        '<figure class="dl-curves"><figcaption><b>Probability of a flip</b></figcaption>'
        f'<div class="dl-plot" role="img" aria-label="{escape(alt, quote=True)}">{grid}'
        f'<div class="dl-band" data-style="0" style="clip-path:polygon({",".join(area)})"></div>'
        f'<div class="dl-line" data-style="0" style="clip-path:polygon({",".join(stroke)})"></div>'
        f"{marks}</div>"
        f'<div class="dl-numbers" aria-hidden="true">{numbers}</div>'
        '<div class="dl-unit" aria-hidden="true">training examples removed, strongest first</div>'
        "<p>That what models retrained without them predict together flips, from the predicted "
        f"change of the {escape(gap)} and its error. At 0: by chance alone.</p></figure>"
    )
