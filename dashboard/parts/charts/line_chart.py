"""Figures against a number, as lines with 95% interval bands, in plain HTML.

Lines differ in dashes and markers as well as in color. Each point has a tooltip, and the text
alternative lists all figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from engine.attribution.evaluation.quality import Measured
from engine.store.quantities import LDS
from engine.store.text import number

STYLES = 6
"""The number of line styles in style/charts.css."""
LOGARITHMIC_FROM = 6
"""The axis is logarithmic if the largest number is at least this many times the smallest."""
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Line:
    """One method's figures: (number, figure), ascending."""

    name: str
    points: Sequence[tuple[int, Measured]]
    style: int


def curves(title: str, words: str, unit: str, lines: Sequence[Line]) -> str:
    """HTML of the chart.

    Args:
        title: What is shown.
        words: How to read it.
        unit: What the numbers on the x-axis count.
        lines: At least one, each with at least one point.
    """
    numbers = sorted({n for line in lines for n, _ in line.points})
    figures = [lds for line in lines for _, lds in line.points]
    bottom, top, ticks = _axis(min(f.low for f in figures), max(f.high for f in figures))

    def across(n: int) -> float:
        return 100 * _position(n, numbers)

    def down(value: float) -> float:
        return 100 * (top - value) / (top - bottom)

    grid = "".join(
        f'<div class="dl-tick" style="top:{down(tick):.2f}%"><span>{number(tick)}</span></div>'
        for tick in ticks
    )
    drawn = "".join(_drawn(line, across, down) for line in lines)
    marks = "".join(_marks(line, unit, across, down) for line in lines)
    below = "".join(
        f'<span style="left:{across(n):.2f}%">{n:,}</span>' for n in _spread(numbers, across)
    )
    legend = "".join(
        f'<span data-style="{line.style}"><i></i>{escape(line.name)}</span>' for line in lines
    )
    values = "; ".join(
        f"{line.name}: " + ", ".join(f"{n:,} {LDS.interval(lds)}" for n, lds in line.points)
        for line in lines
    )
    alt = escape(f"{title}. {words} {unit}: LDS with its interval. {values}", quote=True)
    return (
        f'<figure class="dl-curves"><figcaption><b>{escape(title)}</b>'
        f'<span class="dl-legend">{legend}</span></figcaption>'
        f'<div class="dl-plot" role="img" aria-label="{alt}">{grid}{drawn}{marks}'
        "</div>"
        f'<div class="dl-numbers" aria-hidden="true">{below}</div>'
        f'<div class="dl-unit" aria-hidden="true">{escape(unit)}</div>'
        f"<p>{escape(words)}</p></figure>"
    )


def _drawn(line: Line, across: Callable[[int], float], down: Callable[[float], float]) -> str:
    """The band and the line, each clipped from the plot's area, as `st.html` allows no SVG."""

    def edge(part: str, shift: str = "") -> list[str]:
        heights = ((across(n), down(getattr(lds, part))) for n, lds in line.points)
        return [f"{x:.2f}% calc({y:.2f}%{shift})" for x, y in heights]

    band = edge("high") + edge("low")[::-1]
    stroke = edge("mean", " - 1px") + edge("mean", " + 1px")[::-1]
    return "".join(
        f'<div class="{name}" data-style="{line.style}" '
        f'style="clip-path:polygon({",".join(corners)})"></div>'
        for name, corners in (("dl-band", band), ("dl-line", stroke))
    )


def _marks(
    line: Line, unit: str, across: Callable[[int], float], down: Callable[[float], float]
) -> str:
    return "".join(
        f'<div class="dl-mark" data-style="{line.style}" '
        f'style="left:{across(n):.2f}%;top:{down(lds.mean):.2f}%" '
        f'title="{escape(f"{line.name}, {n:,} {unit}: {LDS.interval(lds)}", quote=True)}"></div>'
        for n, lds in line.points
    )


def _position(n: int, numbers: Sequence[int]) -> float:
    """Position of `n` between the smallest and the largest number, 0 to 1."""
    least, most = numbers[0], numbers[-1]
    if least == most:
        return 0.5
    if least > 0 and most >= LOGARITHMIC_FROM * least:
        return math.log(n / least) / math.log(most / least)
    return (n - least) / (most - least)


def _spread(numbers: Sequence[int], across: Callable[[int], float]) -> list[int]:
    """The numbers whose labels do not overlap; the last is always kept."""
    kept: list[int] = []
    for n in reversed(numbers):
        if not kept or across(kept[-1]) - across(n) >= 9:
            kept.append(n)
    return kept


def _axis(least: float, most: float) -> tuple[float, float, list[float]]:
    """(bottom, top, ticks) of an axis that includes 0 and the figures, with two to six ticks."""
    least, most = min(0.0, least), max(most, 0.02)
    step = next((step for step in STEPS if (most - least) / step <= 5), 0.5)
    first, last = math.floor(least / step), math.ceil(most / step)
    ticks = [step * place for place in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks
