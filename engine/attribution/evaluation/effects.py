"""The predicted effect of removing training examples on outputs, with its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.quality import TWO_SIDED_95, Measured

TARGETED = 0.35
"""Standard deviation of the actual change, relative to the predicted one, when models were
retrained without the strongest supporting examples (measured as described in docs/quality.md)."""


@dataclass(frozen=True)
class Changes:
    """Predicted changes of outputs from one removal, and their errors.

    All are float64 of the same shape. The three errors are half-widths of 95 % intervals.

    Attributes:
        change: Predicted change of each output.
        of_slope: Error of the slope, which all outputs share; it has the sign of the score.
        of_scores: Error of the scores themselves.
        of_targeting: Error because examples are not removed at random.
    """

    change: np.ndarray
    of_slope: np.ndarray
    of_scores: np.ndarray
    of_targeting: np.ndarray

    @property
    def reach(self) -> np.ndarray:
        """Half-width of each output's 95 % interval."""
        reach: np.ndarray = np.sqrt(self.of_slope**2 + self.of_scores**2 + self.of_targeting**2)
        return reach

    def mean(self, members: np.ndarray) -> Measured:
        """Mean change over some of the outputs, with its 95 % interval.

        Errors of the scores average out. Errors that all outputs share do not: those of the slope,
        and those from effects that do not add up.

        Args:
            members: Mask or rows; at least one.
        """
        change = float(self.change[members].mean())
        of_scores = self.of_scores[members]
        parts = (
            float(self.of_slope[members].mean()),
            float(np.sqrt((of_scores**2).sum())) / len(of_scores),
            float(self.of_targeting[members].mean()),
        )
        reach = float(np.sqrt(sum(part**2 for part in parts)))
        return Measured(change, change - reach, change + reach)


def changes(
    totals: np.ndarray,
    counts: int | np.ndarray,
    slope: Measured,
    variances: np.ndarray,
    n_train: int,
    alpha: float,
    targeted: float = TARGETED,
) -> Changes:
    """Predicted changes of the expected outputs of test examples when training examples are
    removed.

    The output is modeled as linear in the training set, Σ_i β_i over its examples, with
    β_i = slope · score_i + e_i. Over random masks with a share α of the examples, the errors sum to
    a variance of α(1 − α) Σ_i e_i². So the residuals of held-out runs give the mean e_i², and
    removing k examples adds k times that to the variance from the slope's interval.

    But examples are not removed at random from half of the data. They are removed from all of it
    because they are similar and have high scores. So effects do not quite add up, and no held-out
    run shows by how much. `targeted` adds the relative error that was measured; it is by far the
    largest of the three.

    Args:
        totals: Sums of the scores of the removed examples, of any shape.
        counts: Number of removed examples.
        slope: Change of the output for a score of 1.
        variances: Variance of actual minus predicted outputs over the test runs (two or more).
        n_train: Number of training examples.
        alpha: Share of them in a run.
        targeted: Relative error of a removal that is not random; 0 for a random one.
    """
    totals = np.asarray(totals, np.float64)
    change = -slope.mean * totals
    of_scores = np.sqrt(counts * variances / (n_train * alpha * (1 - alpha)))
    return Changes(
        change=change,
        of_slope=totals * (slope.high - slope.low) / 2,
        of_scores=TWO_SIDED_95 * of_scores,
        of_targeting=TWO_SIDED_95 * targeted * np.abs(change),
    )


def removal(
    scores: np.ndarray,
    slope: Measured,
    residuals: np.ndarray,
    n_train: int,
    alpha: float,
    targeted: float = TARGETED,
) -> Measured:
    """`changes` of one test example: its change with a 95 % interval.

    Args:
        scores: Scores of the removed examples, `[k]`.
        residuals: Actual minus predicted outputs of this test example, `[runs]`; two or more.
        slope, n_train, alpha, targeted: As for `changes`.
    """
    total = np.array([np.sum(scores, dtype=np.float64)])
    variance = np.array([np.var(residuals, dtype=np.float64, ddof=1)])
    found = changes(total, len(scores), slope, variance, n_train, alpha, targeted)
    change, reach = float(found.change[0]), float(found.reach[0])
    return Measured(change, change - reach, change + reach)


def removals(
    scores: np.ndarray,
    slope: Measured,
    variances: np.ndarray,
    n_train: int,
    alpha: float,
    targeted: float = TARGETED,
) -> tuple[np.ndarray, np.ndarray]:
    """`changes` of many test examples after removing their first 1, 2, … examples.

    Args:
        scores: Scores in the order of removal, `[n, k]`.
        slope, n_train, alpha, targeted: As for `changes`.
        variances: Variance of each test example's residuals, `[n]`.

    Returns:
        Changes and the half-widths of their 95 % intervals, both float64 `[n, k]`.
    """
    totals = np.cumsum(scores, axis=1, dtype=np.float64)
    counts = np.arange(1, scores.shape[1] + 1)
    found = changes(totals, counts, slope, variances[:, None], n_train, alpha, targeted)
    return found.change, found.reach
