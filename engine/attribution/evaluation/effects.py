"""The predicted effect of removing training examples on outputs, with its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.effect_sizes import EffectSizes, Removal, basis
from engine.attribution.evaluation.quality import TWO_SIDED_95, Measured


@dataclass(frozen=True)
class Units:
    """What turns a method's scores into changes of the output.

    Attributes:
        slope: Change of the output for a score of 1, between random subsets.
        sizes: How that differs when examples are removed from all the data.
        mean_square: Of each test example's scores over all training examples, float64 `[n_test]`.
        n_train: Number of training examples.
        alpha: Share of them in a random subset.
    """

    slope: Measured
    sizes: EffectSizes
    mean_square: np.ndarray
    n_train: int
    alpha: float

    def of_one(self, scores: np.ndarray, test: int | np.ndarray) -> np.ndarray:
        """Predicted change of the output of a test example without one training example.

        Args:
            scores: Of any shape: each of one training example.
            test: Test row of each.
        """
        return changes(scores, np.square(scores, dtype=np.float64), 1, self, test).change


@dataclass(frozen=True)
class Changes:
    """Predicted changes of outputs from one removal, and their errors.

    Attributes:
        change: Predicted change of each output, float64 of any shape.
        derivatives: Of `change` by the slopes, `[..., 3]`; the error of the slopes is shared by
            all outputs.
        covariance: Of the slopes, `[3, 3]`.
        own: Variance of each output's own error.
        shared: Standard deviation of the error that a removal has for all outputs it was chosen
            for.
    """

    change: np.ndarray
    derivatives: np.ndarray
    covariance: np.ndarray
    own: np.ndarray
    shared: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """Variance of each output's error, all of it."""
        of_slopes = np.einsum(
            "...i,ij,...j->...", self.derivatives, self.covariance, self.derivatives
        )
        variance: np.ndarray = of_slopes + self.own + self.shared**2
        return variance

    @property
    def reach(self) -> np.ndarray:
        """Half-width of each output's 95 % interval."""
        reach: np.ndarray = TWO_SIDED_95 * np.sqrt(self.variance)
        return reach

    def mean(self, members: np.ndarray) -> Measured:
        """Mean change over some of the outputs, with its 95 % interval.

        Errors of single outputs average out. Errors that all outputs share do not.

        Args:
            members: Mask or rows; at least one.
        """
        change, own = float(self.change[members].mean()), self.own[members]
        derivatives = self.derivatives[members].mean(axis=0)
        variance = derivatives @ self.covariance @ derivatives + own.sum() / len(own) ** 2
        reach = TWO_SIDED_95 * float(np.sqrt(variance + self.shared[members].mean() ** 2))
        return Measured(change, change - reach, change + reach)


def changes(
    totals: np.ndarray,
    squares: np.ndarray,
    counts: int | np.ndarray,
    units: Units,
    tests: int | slice | np.ndarray,
) -> Changes:
    """Predicted changes of the expected outputs of test examples when training examples are
    removed.

    Args:
        totals: Sums of the scores of the removed examples, of any shape.
        squares: Sums of their squares.
        counts: Number of removed examples.
        units: Of the method.
        tests: Test row of each output.
    """
    level, n_train = units.mean_square[tests], units.n_train
    removed = Removal.of(units.slope.mean, totals, squares, level, counts, n_train, units.alpha)
    offset, derivatives = basis(removed)
    own, shared = units.sizes.variances(removed)
    return Changes(
        change=offset + derivatives @ units.sizes.slopes,
        derivatives=derivatives,
        covariance=np.array(units.sizes.covariance),
        own=own,
        shared=np.sqrt(shared),
    )


def removal(scores: np.ndarray, units: Units, test: int) -> Measured:
    """`changes` of one test example: its change with a 95 % interval.

    Args:
        scores: Scores of the removed examples, `[k]`.
        test: Test row.
    """
    each = np.asarray(scores, np.float64)
    found = changes(each.sum(), np.square(each).sum(), len(each), units, test)
    change, reach = float(found.change), float(found.reach)
    return Measured(change, change - reach, change + reach)


def removals(scores: np.ndarray, units: Units, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`changes` of many test examples after removing their first 1, 2, … examples.

    Args:
        scores: Scores in the order of removal, `[n, k]`.
        tests: Test rows `[n]`.

    Returns:
        Changes and the half-widths of their 95 % intervals, both float64 `[n, k]`.
    """
    totals = np.cumsum(scores, axis=1, dtype=np.float64)
    squares = np.cumsum(np.square(scores, dtype=np.float64), axis=1)
    counts = np.arange(1, scores.shape[1] + 1)
    found = changes(totals, squares, counts, units, tests[:, None])
    return found.change, found.reach
