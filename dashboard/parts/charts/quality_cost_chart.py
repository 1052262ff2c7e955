"""Quality against cost, in plain HTML: each method a point with its 95 % interval, beside the lines
of what there is to be gained and lost.

Points differ by marks as well as by colour, and the method stands beside each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from engine.attribution.evaluation.quality import Measured
from engine.attribution.evaluation.verdict import interval
from engine.store.text import number

STYLES = 6
"""How many looks a point can have; style.css has them."""
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of a retraining that may stand under the axis."""
APART = 7.0
"""Least distance of two names that stand beside each other, percent of the height."""
WIDE = 26.0
"""Names nearer than this, percent of the width, stand beside each other."""


@dataclass(frozen=True)
class Point:
    """A method.

    Attributes:
        cost: Of one model, as a share of a retraining, above 0.
        current: Whether it is of the audit that is read, not of another.
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
        points: Cost against distance from retrained models; lower is nearer.
        levels: Lines that the points lie between.
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
        f'title="{_told(level.name, level.distance)}">'
        f"<span>{escape(level.name)} {number(level.distance.mean)}</span></div>"
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
    told = "; ".join(
        [f"{level.name}: {interval(level.distance)}" for level in levels]
        + [f"{one.name} at {one.cost:.1%}: {interval(one.distance)}" for one in points]
    )
    alt = escape(f"{title}. {words} {told}", quote=True)
    return (
        f'<figure class="dl-curves dl-frontier"><figcaption><b>{escape(title)}</b></figcaption>'
        f'<div class="dl-plot" role="img" aria-label="{alt}">{grid}{lines}{drawn}{names}</div>'
        f'<div class="dl-numbers" aria-hidden="true">{below}</div>'
        '<div class="dl-unit" aria-hidden="true">cost of one model, as a share of a retraining'
        f"</div><p>{escape(words)}</p></figure>"
    )


def _drawn(point: Point, x: float, high: float, low: float, y: float) -> str:
    kind = "current" if point.current else "other"
    return (
        f'<div class="dl-reach" data-style="{point.style}" data-kind="{kind}" '
        f'style="left:{x:.2f}%;top:{high:.2f}%;height:{low - high:.2f}%"></div>'
        f'<div class="dl-mark" data-style="{point.style}" data-kind="{kind}" '
        f'style="left:{x:.2f}%;top:{y:.2f}%" '
        f'title="{_told(f"{point.name}, {point.cost:.1%} of a retraining", point.distance)}"></div>'
    )


def _told(name: str, distance: Measured) -> str:
    return escape(f"{name}: {interval(distance)}", quote=True)


def _spread(places: list[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """Where names stand, so that those beside each other do not touch: from the top down."""
    found: list[tuple[int, float, float]] = []
    for place, x, y in sorted(places, key=lambda one: one[2]):
        above = [there for _, beside, there in found if abs(beside - x) < WIDE]
        found.append((place, x, max([y, *(there + APART for there in above)])))
    return found


def _step(most: float) -> float:
    """Between ticks, of which there are some six."""
    raw = max(most, 0.1) / 5
    magnitude: float = 10.0 ** math.floor(math.log10(raw))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw)
