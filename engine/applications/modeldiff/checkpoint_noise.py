"""Pairs of scores that differ by the noise of their checkpoints alone, at full size.

The scores of an algorithm are a mean over its checkpoints: signal + noise. Two parts of its
checkpoints have the same signal, so their difference is pure noise. Such a *contrast* is scaled to
the noise of a mean of all checkpoints: with parts of p and q of m = p + q checkpoints, by √(pq)/m.
(Halves compared as they are would be twice as noisy as the whole.)

Let A = S + n_a and B = S + n_b be the same algorithm, with ρ the share of n_a in the variance of
A − B. Then P = (1 − ρ)A + ρB is uncorrelated with A − B, and A = P + ρ(A − B) and
B = P − (1 − ρ)(A − B). So another pair with the same P is

    A* = P + ρ·D,   B* = P − (1 − ρ)·D,

where D is a contrast of A minus one of B. Each side is as noisy as the algorithm that it stands
for, so a noisy algorithm is not taken for a different one. Before A and B are added, each row is
divided by the length of its signal, which is what the noise leaves of the row's length.

An algorithm with one or two checkpoints says too little about its noise. One of its checkpoints is
taken to be as noisy as one of the other algorithm's, and D is a contrast of the other alone, with
as many of its checkpoints in one part as the algorithm with few has.

With as many checkpoints and as much noise on both sides, ρ = ½ and the pair is an exchange of
checkpoints, which holds whatever the noise is like. Otherwise noise is taken to be Gaussian.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.applications.modeldiff.residuals import Attributions, residuals

MOST_PAIRS = 10
"""Number of pairs that imitate A and B."""
FEWEST_CHECKPOINTS = 3
"""The fewest that tell how much one checkpoint differs from another."""
_MOST_LISTED = 10_000
"""Where there are more ways to split, some are drawn at random instead of listing all."""
_LEAST_SIGNAL = 0.05
"""Smallest share of a row's square that counts as signal: the noise is only estimated."""
_TINY = 1e-12


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
        of_a, of_b: The numbers of checkpoints.
        differences: For each pair, the contrasts that make up A − B, with their factors.
        independent: How many independent pairs they are worth, however many there are.
    """

    of_a: int
    of_b: int
    differences: list[tuple[tuple[Contrast, float], ...]]
    independent: float


def plan(of_a: int, of_b: int, seed: int = 0) -> Plan | None:
    """Choose contrasts for these numbers of checkpoints; None if both are too few."""
    fewest = min(of_a, of_b)
    parts = fewest if fewest < FEWEST_CHECKPOINTS else max(of_a, of_b)  # halves if both are known
    ways = {
        is_a: [Contrast(is_a, *way) for way in split_checkpoints(count, parts, seed + (not is_a))]
        for is_a, count in ((True, of_a), (False, of_b))
        if count >= FEWEST_CHECKPOINTS
    }
    if len(ways) == 2:
        a, b = ways[True], ways[False]
        wanted = min(MOST_PAIRS, len(a) * len(b))
        both = [(a[n % len(a)], b[(n + n // len(a)) % len(b)]) for n in range(wanted)]
        # Satterthwaite's degrees of freedom of a variance σ²/of_a + σ²/of_b
        degrees = (1 / of_a + 1 / of_b) ** 2 / sum(1 / m**2 / (m - 1) for m in (of_a, of_b))
        return Plan(of_a, of_b, [((one, 1.0), (other, -1.0)) for one, other in both], degrees)
    if not ways:
        return None
    is_a, found = next(iter(ways.items()))
    own, other = (of_a, of_b) if is_a else (of_b, of_a)
    factor = math.sqrt(1 + own / other) * (1 if is_a else -1)
    return Plan(of_a, of_b, [((one, factor),) for one in found], own - 1)


def split_checkpoints(
    total: int, smaller: int, seed: int = 0
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Different ways to split checkpoints in two, at most `MOST_PAIRS` of them.

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
class Common:
    """What both sides of every pair have in common.

    Attributes:
        rows: P, in units of the signal.
        share: ρ `[n_test]`.
        signal_a, signal_b: Length of the signal in the rows of A and of B `[n_test]`.
    """

    rows: Attributions
    share: np.ndarray
    signal_a: np.ndarray
    signal_b: np.ndarray


def noise_of_mean(squares: np.ndarray, mean_squares: np.ndarray) -> np.ndarray:
    """Expected squared length of the noise of a mean over checkpoints, without bias.

    Args:
        squares: Squared lengths of the rows of every checkpoint `[m, n_test]`.
        mean_squares: Squared lengths of the rows of their mean `[n_test]`.
    """
    found = (squares.mean(axis=0) - mean_squares) / (len(squares) - 1)
    return np.asarray(np.maximum(found, 0))


def common_part(
    a: Attributions, b: Attributions, plan: Plan, noise: tuple[np.ndarray | None, np.ndarray | None]
) -> Common:
    """What A and B have in common if they are the same algorithm.

    Args:
        a, b: Their scores before any soft threshold.
        noise: `noise_of_mean` of A and of B; None for too few checkpoints.
    """
    found = residuals(a, b)
    of_a, of_b = (
        None if one is None else _to_signal(one / norm**2)
        for one, norm in zip(noise, (found.norm_a, found.norm_b), strict=True)
    )
    if of_a is None and of_b is not None:
        of_a = of_b * plan.of_b / plan.of_a
    if of_b is None and of_a is not None:
        of_b = of_a * plan.of_a / plan.of_b
    if of_a is None or of_b is None:
        raise ValueError("the noise of neither algorithm is known")
    both = np.maximum(of_a + of_b, _TINY)
    share = np.where(of_a + of_b > _TINY, of_a / both, 0.5)
    signal_a, signal_b = found.norm_a / np.sqrt(1 + of_a), found.norm_b / np.sqrt(1 + of_b)
    parts = (1 - share) * np.sqrt(1 + of_a), share * np.sqrt(1 + of_b)
    cosines = found.beta * found.norm_b
    square = parts[0] ** 2 + parts[1] ** 2 + 2 * parts[0] * parts[1] * cosines
    # The length that it has if they are the same algorithm; of different ones it is shorter.
    length = np.sqrt((1 + of_a * of_b / both) / np.maximum(square, _LEAST_SIGNAL))
    scales = (length * (1 - share) / signal_a, length * share / signal_b)
    terms = [(scale.astype(np.float32), one) for scale, one in zip(scales, (a, b), strict=True)]
    return Common(ScaledSum(terms), share, signal_a, signal_b)


def imitate(
    common: Common, difference: Sequence[tuple[bool, float, Attributions]]
) -> tuple[ScaledSum, ScaledSum]:
    """A* and B*.

    Args:
        difference: For each contrast that makes up A − B: whether it is one of A, its factor, and
            its scores.
    """
    sides = []
    for own, sign in ((common.signal_a, common.share), (common.signal_b, common.share - 1)):
        terms = [(own.astype(np.float32), common.rows)]
        for of_a, factor, scores in difference:
            source = common.signal_a if of_a else common.signal_b
            terms.append(((sign * factor * own / source).astype(np.float32), scores))
        sides.append(ScaledSum(terms))
    return sides[0], sides[1]


def _to_signal(share: np.ndarray) -> np.ndarray:
    """The noise relative to the signal, from the noise relative to the whole row."""
    limited = np.minimum(share, 1 - _LEAST_SIGNAL)
    return np.asarray(limited / (1 - limited))
