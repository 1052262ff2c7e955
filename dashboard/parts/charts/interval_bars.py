"""Figures with 95% intervals as bars in plain HTML; each number is shown next to its bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from engine.attribution.evaluation.quality import Measured
from engine.store.quantities import LDS, Quantity


@dataclass(frozen=True)
class Bar:
    """One figure.

    Attributes:
        name: What was measured.
        words: Text under the name.
        tag: A word such as `preferred`.
        baseline: Whether it is only a reference.
    """

    name: str
    lds: Measured
    words: str = ""
    tag: str = ""
    baseline: bool = False


def intervals(
    bars: Sequence[Bar],
    name: str,
    here: str | None = None,
    changes: bool = False,
    quantity: Quantity = LDS,
) -> str:
    """HTML of the bars from 0, each with the interval's ends as whiskers.

    Args:
        name: What is listed, for screen readers.
        here: Name of the bar that the page is about.
        changes: Whether figures below 0 are as meaningful as those above it.
        quantity: What the figures are.
    """
    least = min(0.0, *(bar.lds.low for bar in bars))
    most = max(0.0, *(bar.lds.high for bar in bars))
    span = (most - least) or 1.0

    def percent(value: float) -> float:
        return 100 * (value - least) / span

    entries = "".join(_entry(bar, percent, bar.name == here, changes, quantity) for bar in bars)
    return (
        f'<ol class="dl-intervals" role="list" aria-label="{escape(name, quote=True)}">'
        f"{entries}</ol>"
    )


def _entry(
    bar: Bar, percent: Callable[[float], float], here: bool, changes: bool, quantity: Quantity
) -> str:
    zero, mean = percent(0), percent(bar.lds.mean)
    left, right = min(zero, mean), max(zero, mean)
    low, high = percent(bar.lds.low), percent(bar.lds.high)
    name = escape(bar.name if len(bar.name) <= 60 else bar.name[:59] + "…")
    tag = f'<span class="dl-tag">{escape(bar.tag)}</span>' if bar.tag else ""
    words = f"<small>{escape(bar.words)}</small>" if bar.words else ""
    known = bar.lds.low < bar.lds.high
    ends = quantity.range(bar.lds.low, bar.lds.high) if known else ""
    significant = bar.lds.low > 0 or (changes and bar.lds.high < 0)
    kind = "baseline" if bar.baseline else "plain" if significant else "chance"
    current = ' aria-current="true"' if here else ""
    return (
        f'<li data-kind="{kind}"{current}><div class="dl-name">{name} {tag}{words}</div>'
        f'<div class="dl-figure">{quantity.text(bar.lds.mean)} <small>{ends}</small></div>'
        '<div class="dl-whiskers" aria-hidden="true">'
        f'<i style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
        f'<b style="left:{low:.2f}%;width:{high - low:.2f}%"></b>'
        f'<s style="left:{zero:.2f}%"></s></div></li>'
    )
