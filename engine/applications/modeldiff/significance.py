"""Which distinguishing directions are more than chance in training.

Two sets of checkpoints of *the same* algorithm also differ, by the chance of initial weights and
order; so do two sets of subset runs. So each algorithm's own are split in two, and compared as if
they were two algorithms; the largest distinguishing variance found there is what chance alone
gives. A direction of A∖B is called significant where its distinguishing variance is beyond that.

Splits hold fewer of them than the comparison itself, and fewer are noisier: so the null is too
large rather than too small, and errs to the side of saying nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
FEWEST_VALUES = 3
MOST_SPLITS = 10
FEWEST_MASKS = 3
"""A datamodel chooses its settings by so many subset runs, and is fitted to so many others."""
_LEAST_SPREAD = 0.1
"""Logarithmic: splits of a few checkpoints overlap, and may agree more than new ones would."""


@dataclass(frozen=True)
class Null:
    """What chance in training gives.

    Attributes:
        values: The largest distinguishing variance of each split of one algorithm.
    """

    values: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether there are enough splits to say anything."""
        return len(self.values) >= FEWEST_VALUES


def split_checkpoints(
    total: int, smaller: int, seed: int = 0
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Different ways to split checkpoints in two, at most `MOST_SPLITS` of them.

    Args:
        total: How many there are.
        smaller: How many the second part has, at most half of them.
    """
    smaller = min(smaller, total // 2)
    if smaller < 1:
        return []
    everybody = set(range(total))
    parts = list(itertools.islice(itertools.combinations(range(total), smaller), 100_000))
    if 2 * smaller == total:  # each split would come twice
        parts = [part for part in parts if 0 in part]
    chosen = np.random.default_rng(seed).permutation(len(parts))[:MOST_SPLITS]
    return [(tuple(sorted(everybody - set(parts[n]))), parts[n]) for n in sorted(chosen)]


def split_masks(
    held_out: np.ndarray, share: float, seed: int = 0
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Random ways to split the masks of subset runs in two.

    Those that choose settings and the others are split alike, so that a datamodel can be fitted to
    either part.

    Args:
        held_out: Which masks choose settings, bool `[m]`.
        share: Of the second part, at most a half.

    Returns:
        `MOST_SPLITS` pairs of ascending rows; none where a part would have too few to fit to.
    """
    groups = [np.flatnonzero(held_out), np.flatnonzero(~held_out)]
    sizes = [int(min(share, 0.5) * len(group)) for group in groups]
    if min(sizes) < FEWEST_MASKS:
        return []
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(MOST_SPLITS):
        second = np.concatenate(
            [generator.permutation(group)[:size] for group, size in zip(groups, sizes, strict=True)]
        )
        first = np.setdiff1d(np.arange(len(held_out)), second)
        found.append((tuple(first.tolist()), tuple(sorted(second.tolist()))))
    return found


def p_values(distinguishing: np.ndarray, null: Null, comparisons: int = 2) -> np.ndarray:
    """How likely chance alone gives so large a distinguishing variance, for each direction.

    The null's values are the largest of all directions of a split, which corrects for the number
    of directions looked at; `comparisons` (A∖B and B∖A) is corrected for by Bonferroni. A new value
    is compared with them on a logarithmic scale by Student's prediction interval, and where it does
    not exceed every one of them, it is not significant whatever the interval says.

    Returns:
        `[k]`; 1 where it is not above 0, NaN where there is no null.
    """
    from scipy.special import stdtr

    if not null.known:
        return np.full(len(distinguishing), np.nan)
    logs = np.log(np.maximum(null.values, 1e-12))
    spread = max(float(logs.std(ddof=1)), _LEAST_SPREAD) * math.sqrt(1 + 1 / len(logs))
    found = np.ones(len(distinguishing))
    for place, value in enumerate(distinguishing):
        if value > max(null.values):
            t = (math.log(value) - float(logs.mean())) / spread
            found[place] = min(1.0, comparisons * float(stdtr(len(logs) - 1, -t)))
        elif value > 0:
            found[place] = max(LEVEL, float((np.array(null.values) >= value).mean()))
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values, in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return [float(value) for value in adjusted]
