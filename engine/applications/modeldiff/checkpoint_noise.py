"""Pairs of scores that differ by the noise of their checkpoints alone, at full size.

The scores of an algorithm are a mean over its checkpoints: signal + noise. Two parts of its
checkpoints have the same signal, so their difference is pure noise. Such a *contrast* is scaled to
the noise of a mean of all checkpoints: with parts of p and q of m = p + q checkpoints, by √(pq)/m.
(Halves compared as they are would be twice as noisy as the whole.)

A and B with the same signal are imitated by one common signal plus a contrast each. The signal is
the mean of both algorithms' rows, scaled to the length that is left when the noise is taken away:
a row of length 1 whose noise has length n has a signal of length √(1 − n²). Each algorithm keeps
its own noise, so a noisy algorithm is not taken for a different one.

An algorithm with one or two checkpoints says too little about its noise. It is given that of the
other: one contrast is then shared between both sides such that their difference has the right size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.applications.modeldiff.residuals import Attributions, residuals
from engine.store.rows import ranges

MOST_PAIRS = 10
"""Number of pairs that imitate A and B."""
FEWEST_CHECKPOINTS = 3
"""The fewest that tell how much one checkpoint differs from another."""
_MOST_LISTED = 10_000
"""Where there are more ways to split, some are drawn at random instead of listing all."""
_LEAST_SIGNAL = 0.05
"""Smallest share of a row's square that counts as signal: the noise is only estimated."""
_BLOCK_BYTES = 2**28


@dataclass(frozen=True)
class Contrast:
    """Mean of the first checkpoints minus that of the second, scaled to the noise of the mean.

    Attributes:
        of_a: Whether they are checkpoints of A; otherwise of B.
        first, second: Their numbers; together all that the algorithm has.
    """

    of_a: bool
    first: tuple[int, ...]
    second: tuple[int, ...]

    @property
    def shares(self) -> dict[int, float]:
        """The factor of each checkpoint."""
        p, q = len(self.first), len(self.second)
        size = math.sqrt(p * q) / (p + q)
        return dict.fromkeys(self.first, size / p) | dict.fromkeys(self.second, -size / q)


@dataclass(frozen=True)
class Plan:
    """How to imitate A and B, each with its own number of checkpoints.

    Attributes:
        contrasts: For each pair, the contrasts of A and of B: the same one twice if only one of
            them has enough checkpoints.
        sizes: Factors on the contrasts of A and of B.
        independent: How many independent contrasts there are, however many pairs are made.
    """

    contrasts: list[tuple[Contrast, Contrast]]
    sizes: tuple[float, float]
    independent: int


def plan(of_a: int, of_b: int, seed: int = 0) -> Plan | None:
    """Choose contrasts for these numbers of checkpoints; None if both are too few."""
    ways = {
        is_a: [Contrast(is_a, *way) for way in split_checkpoints(count, seed + (not is_a))]
        for is_a, count in ((True, of_a), (False, of_b))
        if count >= FEWEST_CHECKPOINTS
    }
    if len(ways) == 2:
        a, b = ways[True], ways[False]
        wanted = min(MOST_PAIRS, len(a) * len(b))
        both = [(a[n % len(a)], b[(n + n // len(a)) % len(b)]) for n in range(wanted)]
        return Plan(both, (1.0, 1.0), of_a + of_b - 2)
    if not ways:
        return None
    is_a, found = next(iter(ways.items()))
    own, other = (of_a, of_b) if is_a else (of_b, of_a)
    # If own + other checkpoints were split like this, the parts would differ from their common
    # mean by so much, in units of the noise of a mean of `own`.
    sizes = (math.sqrt(other / (own + other)), -own / math.sqrt(other * (own + other)))
    return Plan([(one, one) for one in found], sizes if is_a else sizes[::-1], own - 1)


def split_checkpoints(total: int, seed: int = 0) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Different ways to split checkpoints in halves, at most `MOST_PAIRS` of them."""
    smaller = total // 2
    if smaller < 1:
        return []
    everything = set(range(total))
    equal = 2 * smaller == total
    generator = np.random.default_rng(seed)
    if math.comb(total, smaller) > _MOST_LISTED:
        drawn: list[tuple[int, ...]] = []
        while len(drawn) < MOST_PAIRS:
            part = set(generator.permutation(total)[:smaller].tolist())
            if equal and 0 not in part:  # otherwise each split could appear twice
                part = everything - part
            if tuple(sorted(part)) not in drawn:
                drawn.append(tuple(sorted(part)))
        return [(tuple(sorted(everything - set(part))), part) for part in drawn]
    parts = list(itertools.combinations(range(total), smaller))
    if equal:
        parts = [part for part in parts if 0 in part]
    chosen = generator.permutation(len(parts))[:MOST_PAIRS]
    return [(tuple(sorted(everything - set(parts[n]))), parts[n]) for n in chosen]


@dataclass(frozen=True)
class ScaledSum:
    """Σ diag(scale) · scores, with only the part of `Scores` that ModelDiff needs.

    Attributes:
        terms: Each with the scale of its rows `[n_test]` float32.
    """

    terms: Sequence[tuple[np.ndarray, Attributions]]

    @property
    def n_test(self) -> int:
        return self.terms[0][1].n_test

    @property
    def n_train(self) -> int:
        return self.terms[0][1].n_train

    def rows(self, tests: np.ndarray) -> np.ndarray:
        return np.asarray(sum(scale[tests, None] * one.rows(tests) for scale, one in self.terms))

    def matmat(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(sum(scale[:, None] * one.matmat(x) for scale, one in self.terms))

    def rmatmat(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(sum(one.rmatmat(scale[:, None] * y) for scale, one in self.terms))


@dataclass(frozen=True)
class Signal:
    """What both sides of a pair have in common.

    Attributes:
        rows: The mean of A's and B's rows, each scaled to length 1, scaled to length 1 again.
        norm_a, norm_b: Lengths of the rows of A and of B `[n_test]`; 1 for rows of zeros.
    """

    rows: Attributions
    norm_a: np.ndarray
    norm_b: np.ndarray


def common_signal(a: Attributions, b: Attributions) -> Signal:
    """The signal of A and B if they are the same algorithm; both before any soft threshold."""
    found = residuals(a, b)
    cosines = found.beta * found.norm_b
    length = np.sqrt(np.maximum(2 + 2 * cosines, 2 * _LEAST_SIGNAL))
    scales = (1 / (norm * length) for norm in (found.norm_a, found.norm_b))
    terms = [(scale.astype(np.float32), one) for scale, one in zip(scales, (a, b), strict=True)]
    return Signal(ScaledSum(terms), found.norm_a, found.norm_b)


def add_noise(
    signal: Signal, noise: Attributions, of_a: bool, size: float, for_a: bool
) -> ScaledSum:
    """One side of a pair: the common signal and a contrast, with rows as long as that side's.

    Args:
        noise: Scores of a contrast.
        of_a: Whether it was made from A's checkpoints.
        size: Factor on it.
        for_a: Whether the side stands for A.
    """
    source = signal.norm_a if of_a else signal.norm_b
    own = signal.norm_a if for_a else signal.norm_b
    kept = np.sqrt(np.maximum(1 - _squares(noise) / source**2, _LEAST_SIGNAL))
    scales = (own * kept, size * own / source)
    terms = zip(scales, (signal.rows, noise), strict=True)
    return ScaledSum([(scale.astype(np.float32), one) for scale, one in terms])


def _squares(scores: Attributions) -> np.ndarray:
    """Squared lengths of the rows `[n_test]`."""
    found = np.empty(scores.n_test)
    for tests in ranges(range(scores.n_test), max(1, _BLOCK_BYTES // (4 * scores.n_train))):
        rows = scores.rows(np.arange(tests.start, tests.stop))
        found[tests.start : tests.stop] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return found
