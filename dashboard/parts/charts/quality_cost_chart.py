"""Quality against cost, in plain HTML: each method is a point with its 95% interval, with lines for
the best and the worst to expect.

Points differ in shape as well as in color, and each is labeled with its method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from engine.attribution.evaluation.quality import Measured
from engine.store.quantities import KLOM
from engine.store.text import number

STYLES = 6
"""The number of point styles in style/charts.css."""
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Possible axis ticks, as shares of a retraining."""
APART = 7.0
"""Least vertical distance between neighboring names, in percent of the height."""
WIDE = 26.0
"""Names closer than this horizontally, in percent of the width, count as neighboring."""


@dataclass(frozen=True)
class Point:
    """A method.

    Attributes:
        cost: Of one model, as a share of a retraining, above 0.
        current: Whether it belongs to the audit shown, not to a different one.
    """

    name: str
    cost: float
    distance: Measured
    style: int
    current: bool = True


@dataclass(frozen=True)
class Level:
    """A line across the chart."""

    name: str
    distance: Measured
    kind: str


def frontier(title: str, words: str, points: Sequence[Point], levels: Sequence[Level]) -> str:
    """HTML of the chart.

    Args:
        title: What is shown.
        words: How to read it.
        points: Cost against distance from retrained models; lower is closer.
        levels: Reference lines.
    """
    least = min((point.cost for point in points), default=0.05)
    first = next(tick for tick in reversed(TICKS) if tick <= max(least / 1.5, TICKS[0]))
    distances = [point.distance for point in points] + [level.distance for level in levels]
    least_far, most_far = (
        min(one.low for one in distances),
        max(one.high for one in distances),
    )
    step = _step(most_far - least_far)
    bottom = step * max(0, math.floor(least_far / step))
    top = step * max(math.ceil(most_far / step), round(bottom / step) + 1)

    def across(cost: float) -> float:
        return 100 * math.log(max(cost, first) / first) / math.log(1 / first)

    def down(value: float) -> float:
        return 100 * (top - value) / (top - bottom)

    ticks = [bottom + step * place for place in range(round((top - bottom) / step) + 1)]
    decimals = 0 if step >= 1 else 1
    grid = "".join(
        f'<div class="dl-tick" style="top:{down(tick):.2f}%"><span>{number(tick, decimals)}</span>'
        "</div>"
        for tick in ticks
    )
    below = "".join(
        f'<span style="left:{across(tick):.2f}%">{tick:.1%}</span>'.replace(".0%", "%")
        for tick in TICKS
        if tick >= first
    )
    lines = "".join(
        f'<div class="dl-level" data-kind="{level.kind}" '
        f'style="top:{down(level.distance.mean):.2f}%" '
        f'title="{_tooltip(level.name, level.distance)}">'
        f"<span>{escape(level.name)} {KLOM.text(level.distance.mean)}</span></div>"
        for level in levels
    )
    places = [(across(point.cost), down(point.distance.mean)) for point in points]
    drawn = "".join(
        _drawn(point, x, down(point.distance.high), down(point.distance.low), y)
        for point, (x, y) in zip(points, places, strict=True)
    )
    names = "".join(
        f'<div class="dl-beside dl-legend" style="left:{x:.2f}%;top:{y:.2f}%">'
        f'<span data-style="{points[place].style}"><i></i>{escape(points[place].name)}</span></div>'
        for place, x, y in _spread(
            [(place, *places[place]) for place, point in enumerate(points) if point.current]
        )
    )
    values = "; ".join(
        [f"{level.name}: {KLOM.interval(level.distance)}" for level in levels]
        + [f"{one.name} at {one.cost:.1%}: {KLOM.interval(one.distance)}" for one in points]
    )
    alt = escape(f"{title}. {words} {values}", quote=True)
    return (
        f'<figure class="dl-curves dl-frontier"><figcaption><b>{escape(title)}</b></figcaption>'
        f'<div class="dl-plot" role="img" aria-label="{alt}">{grid}{lines}{drawn}{names}</div>'
        f'<div class="dl-numbers" aria-hidden="true">{below}</div>'
        '<div class="dl-unit" aria-hidden="true">cost of one model, as a share of a retraining'
        f"</div><p>{escape(words)}</p></figure>"
    )


def _drawn(point: Point, x: float, high: float, low: float, y: float) -> str:
    kind = "current" if point.current else "other"
    tooltip = _tooltip(f"{point.name}, {point.cost:.1%} of a retraining", point.distance)
    return (
        f'<div class="dl-reach" data-style="{point.style}" data-kind="{kind}" '
        f'style="left:{x:.2f}%;top:{high:.2f}%;height:{low - high:.2f}%"></div>'
        f'<div class="dl-mark" data-style="{point.style}" data-kind="{kind}" '
        f'style="left:{x:.2f}%;top:{y:.2f}%" '
        f'title="{tooltip}"></div>'
    )


def _tooltip(name: str, distance: Measured) -> str:
    return escape(f"{name}: {KLOM.interval(distance)}", quote=True)


def _spread(places: list[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """Positions of the names, placed from the top down so that they do not overlap."""
    found: list[tuple[int, float, float]] = []
    for place, x, y in sorted(places, key=lambda one: one[2]):
        above = [other_y for _, other_x, other_y in found if abs(other_x - x) < WIDE]
        found.append((place, x, max([y, *(other_y + APART for other_y in above)])))
    return found


def _step(most: float) -> float:
    """Distance between ticks, for about six of them."""
    raw = max(most, 0.1) / 5
    magnitude: float = 10.0 ** math.floor(math.log10(raw))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw)
