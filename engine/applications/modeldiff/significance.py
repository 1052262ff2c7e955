"""Test which distinguishing directions are beyond chance in training.

Two sets of checkpoints of *the same* algorithm also differ, because initial weights and batch order
are random; so do two sets of subset runs. So pairs of scores are made that differ like A and B
would if they were the same algorithm (`engine.applications.modeldiff.chance`). The largest
distinguishing variance of a pair is the effect of chance alone. A direction of A∖B is significant
if its distinguishing variance exceeds that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.applications.modeldiff.residuals import Attributions, directions, residuals

LEVEL = 0.05
FEWEST_INDEPENDENT = 2
_TOLERANCE = 1e-3
_LEAST_VALUE = 0.01
"""Of null values, relative to the largest: the logarithm needs positive ones."""
_LEAST_SPREAD = 0.1
"""Logarithmic: imitated pairs are no more accurate than this."""


@dataclass(frozen=True)
class Null:
    """Distinguishing variances that come from chance in training.

    Attributes:
        a, b: The largest distinguishing variance of A∖B and of B∖A for each pair.
        independent: How many independent pairs they are worth.
    """

    a: tuple[float, ...] = ()
    b: tuple[float, ...] = ()
    independent: float = 0

    @property
    def known(self) -> bool:
        """Whether there are enough pairs for a test."""
        return min(len(self.a), self.independent) >= FEWEST_INDEPENDENT


def null_of(
    pairs: Iterable[tuple[Attributions, Attributions]], independent: float, k: int, seed: int = 0
) -> Null:
    """Compare the two sides of each pair like A and B are compared.

    Args:
        pairs: Scores that differ by chance alone.
        independent: How many independent pairs they are worth.
        k: Number of directions, as for A and B.
    """
    found: tuple[list[float], list[float]] = ([], [])
    for one, other in pairs:
        for values, sides in zip(found, ((one, other), (other, one)), strict=True):
            of_pair = directions(residuals(*sides), k, seed, _TOLERANCE, resamples=0)
            values.append(float(of_pair.distinguishing.max()))
    return Null(tuple(found[0]), tuple(found[1]), independent)


def p_values(distinguishing: np.ndarray, null: Null, of_a: bool) -> np.ndarray:
    """p-value of the distinguishing variance of each direction of A∖B, or of B∖A.

    Each null value is the largest over all directions of a pair, which corrects for the number of
    directions tested; Bonferroni corrects for the two sides. A new value is compared with the null
    on a logarithmic scale by Student's prediction interval. The spread is that of both sides; the
    mean of two variances of n values with correlation r has 2(n − 1)/(1 + r²) degrees of freedom.
    Few checkpoints give many pairs, but these are alike: n counts those that are independent.
    A value that does not exceed every null value is never significant.

    Returns:
        `[k]`; 1 for variances not above 0, NaN without a null.
    """
    from scipy.special import stdtr

    if not null.known:
        return np.full(len(distinguishing), np.nan)
    values = np.array(null.a if of_a else null.b)
    logs = [_logs(side) for side in (null.a, null.b)]
    center = float(logs[0 if of_a else 1].mean())
    count = min(float(len(values)), null.independent)
    spread = max(math.sqrt(np.mean([side.var(ddof=1) for side in logs])), _LEAST_SPREAD)
    spread *= math.sqrt(1 + 1 / count)
    degrees = 2 * (count - 1) / (1 + _correlation(*logs) ** 2)
    found = np.ones(len(distinguishing))
    for place, value in enumerate(distinguishing):
        if value > max(values.max(), 0):
            t = (math.log(value) - center) / spread
            found[place] = min(1.0, 2 * float(stdtr(degrees, -t)))
        elif value > 0:
            found[place] = max(LEVEL, float((values >= value).mean()))
    return found


def _logs(side: Sequence[float]) -> np.ndarray:
    values = np.array(side)
    return np.asarray(np.log(np.maximum(values, max(_LEAST_VALUE * values.max(), 1e-12))))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """1 where it is not defined."""
    size = float(a.std() * b.std())
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / size if size > 0 else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values, in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return [float(value) for value in adjusted]
