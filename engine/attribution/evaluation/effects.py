"""What removing training examples would do to outputs, as far as calibrated scores can say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.quality import TWO_SIDED_95, Measured

TARGETED = 0.35
"""Standard deviation, relative to the predicted change, of what retraining without the strongest
supporters did (docs/quality.md says where it was measured)."""


@dataclass(frozen=True)
class Changes:
    """Changes of outputs that one removal is expected to make, with what they may be off by.

    The three errors are half-widths of 95 % intervals, float64 of one shape.

    Attributes:
        change: Expected change of each output.
        of_slope: By the slope, which all outputs share: it has the sign of the score.
        of_scores: By the scores themselves.
        of_targeting: Because examples are not removed at random.
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

        Errors of the scores are averaged out; what all outputs share, the slope and how far effects
        add up, is not.

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
    """Changes of the expected outputs of test examples when training examples are removed.

    An output is taken for linear in who is trained on, Σ_i β_i over the training set, with
    β_i = slope · score_i + e_i. Over random masks of a share α the errors sum to a variance of
    α(1 − α) Σ_i e_i², so the residuals of held-out runs give the mean e_i², and removing k
    examples adds k of them to the variance that the slope's interval brings.

    But examples are removed because they are alike and score high, from all of the data, not at
    random from half of it: so effects do not quite add up, and no held-out run shows how far. What
    they were off by where it was tried is added, relative to the change. It is by far the most.

    Args:
        totals: Sums of the scores of the removed examples; of any shape.
        counts: How many they are.
        slope: Change of the output for a score of 1.
        variances: Of actual less predicted outputs on the test runs; two or more.
        n_train: Training examples in all.
        alpha: Share of them in a run.
        targeted: Relative error of a removal that is not random; 0 for one that is.
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
    """`changes` of one test example: its change with its 95 % interval.

    Args:
        scores: Of the examples removed `[k]`.
        residuals: Of this test example `[runs]`; two or more.
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
    """`removal` of the first 1, 2, … of many test examples' scores.

    Args:
        scores: In the order of removal `[n, k]`.
        variances: Of each test example's residuals `[n]`.

    Returns:
        Changes, and how far their 95 % intervals reach to both sides: float64 `[n, k]`.
    """
    totals = np.cumsum(scores, axis=1, dtype=np.float64)
    counts = np.arange(1, scores.shape[1] + 1)
    found = changes(totals, counts, slope, variances[:, None], n_train, alpha, targeted)
    return found.change, found.reach
