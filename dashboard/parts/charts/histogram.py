"""A histogram in plain HTML: lightweight, in the page's theme, with a text alternative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Series:
    """Values to count; series are stacked from the bottom up in the given order."""

    name: str
    values: np.ndarray
    kind: Literal["plain", "good", "wrong", "chance"] = "plain"


def histogram(
    title: str,
    words: str,
    series: Sequence[Series],
    edges: np.ndarray,
    ends: tuple[str, str, str],
    marked: float | None = None,
) -> str:
    """HTML of stacked counts.

    Args:
        title: What is counted.
        words: How to read it.
        edges: Bin edges, ascending. Values beyond the ends count in the outer bins.
        ends: Texts under the left end, the middle and the right end.
        marked: A value whose bin is highlighted.
    """
    counts = [np.histogram(np.clip(s.values, edges[0], edges[-1]), edges)[0] for s in series]
    highest = max(1, int(np.sum(counts, axis=0).max(initial=0)))
    here = None
    if marked is not None:
        place = int(np.searchsorted(edges, marked, side="right")) - 1
        here = min(max(place, 0), len(edges) - 2)
    columns = "".join(
        _column(bin, [int(count[bin]) for count in counts], series, edges, highest, bin == here)
        for bin in range(len(edges) - 1)
    )
    legend = "".join(
        f'<span data-kind="{one.kind}"><i></i>{escape(one.name)} {len(one.values):,}</span>'
        for one in series
    )
    alt = escape(f"Histogram: {title}. {words}", quote=True)
    under = "".join(f"<span>{escape(end)}</span>" for end in ends)
    return (
        f'<figure class="dl-histogram"><figcaption><b>{escape(title)}</b>'
        f'<span class="dl-legend">{legend}</span></figcaption>'
        f'<div class="dl-columns" role="img" aria-label="{alt}">{columns}</div>'
        f'<div class="dl-axis" aria-hidden="true">{under}</div><p>{escape(words)}</p></figure>'
    )


def _column(
    bin: int, counts: list[int], series: Sequence[Series], edges: np.ndarray, highest: int, on: bool
) -> str:
    parts = "".join(
        f'<i data-kind="{one.kind}" style="height:{100 * count / highest:.2f}%"></i>'
        for one, count in zip(reversed(series), reversed(counts), strict=True)
    )
    text = ", ".join(f"{one.name} {n:,}" for one, n in zip(series, counts, strict=True))
    hint = escape(f"{edges[bin]:.3g} to {edges[bin + 1]:.3g}: {text}", quote=True)
    mark = ' data-here="true"' if on else ""
    return f'<div title="{hint}"{mark}>{parts}</div>'
