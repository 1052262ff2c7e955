"""Test which distinguishing directions are beyond chance in training.

Two sets of checkpoints of *the same* algorithm also differ, because initial weights and batch order
are random; so do two sets of subset runs. So each algorithm's checkpoints and runs are split in
two, and the parts are compared as if they were two algorithms. The largest distinguishing variance
found there is the effect of chance alone. A direction of A∖B is significant if its distinguishing
variance exceeds that.

The parts of a split are smaller than the sets of the comparison itself, and so noisier. The null is
therefore too large rather than too small, and the test is conservative.
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
"""Fewest subset runs that a datamodel is fitted to, and fewest that choose its settings."""
_MOST_LISTED = 10_000
"""Where there are more ways to split, some are drawn at random instead of listing all."""
_LEAST_SPREAD = 0.1
"""Logarithmic: splits of a few checkpoints overlap, so they vary less than independent ones."""


@dataclass(frozen=True)
class Null:
    """Distinguishing variances that come from chance in training.

    Attributes:
        values: The largest distinguishing variance of each split of one algorithm.
    """

    values: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether there are enough splits for a test."""
        return len(self.values) >= FEWEST_VALUES


def split_checkpoints(
    total: int, smaller: int, seed: int = 0
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Different ways to split checkpoints in two, at most `MOST_SPLITS` of them.

    Args:
        total: Number of checkpoints.
        smaller: Number of checkpoints in the second part, at most half of them.
    """
    smaller = min(smaller, total // 2)
    if smaller < 1:
        return []
    everything = set(range(total))
    equal = 2 * smaller == total
    generator = np.random.default_rng(seed)
    if math.comb(total, smaller) > _MOST_LISTED:
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < MOST_SPLITS:
            part = set(generator.permutation(total)[:smaller].tolist())
            if equal and 0 not in part:  # otherwise each split could appear twice
                part = everything - part
            drawn.add(tuple(sorted(part)))
        return [(tuple(sorted(everything - set(part))), part) for part in sorted(drawn)]
    parts = list(itertools.combinations(range(total), smaller))
    if equal:
        parts = [part for part in parts if 0 in part]
    chosen = generator.permutation(len(parts))[:MOST_SPLITS]
    return [(tuple(sorted(everything - set(parts[n]))), parts[n]) for n in sorted(chosen)]


def split_masks(
    held_out: np.ndarray, share: float, seed: int = 0
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Random ways to split the masks of subset runs in two.

    Masks that choose settings and the other masks are split in the same proportion, so that a
    datamodel can be fitted to either part.

    Args:
        held_out: Whether a mask is for choosing settings, bool `[m]`.
        share: Share of the masks in the second part, at most a half.

    Returns:
        `MOST_SPLITS` pairs of ascending rows; none if a part would be too small to fit to.
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
    """p-value of each direction's distinguishing variance under chance alone.

    Each null value is the largest over all directions of a split, which corrects for the number of
    directions tested; Bonferroni corrects for the number of `comparisons` (A∖B and B∖A). A new
    value is compared with the null on a logarithmic scale by Student's prediction interval. A value
    that does not exceed every null value is never significant.

    Returns:
        `[k]`; 1 for variances not above 0, NaN without a null.
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
