"""What removing training examples would do to an output, as far as calibrated scores can say."""

from __future__ import annotations

import numpy as np

from engine.quality import TWO_SIDED_95, Measured

TARGETED = 0.35
"""Standard deviation, relative to the predicted change, of what retraining without the strongest
supporters did (docs/quality.md says where it was measured)."""


def removal(
    scores: np.ndarray,
    slope: Measured,
    residuals: np.ndarray,
    n_train: int,
    alpha: float,
    targeted: float = TARGETED,
) -> Measured:
    """Change of the expected output of one test example, with its 95 % interval.

    The output is taken for linear in who is trained on, Σ_i β_i over the training set, with
    β_i = slope · score_i + e_i. Over random masks of a share α the errors sum to a variance of
    α(1 − α) Σ_i e_i², so the residuals of held-out runs give the mean e_i², and removing k
    examples adds k of them to the variance that the slope's interval brings.

    But examples are removed because they are alike and score high, from all of the data, not at
    random from half of it: so effects do not quite add up, and no held-out run shows how far. What
    they were off by where it was tried is added, relative to the change. It is by far the most.

    Args:
        scores: Of the examples removed `[k]`.
        slope: Change of the output for a score of 1.
        residuals: Actual less predicted output of this test example on the test runs `[runs]`;
            two or more.
        n_train: Training examples in all.
        alpha: Share of them in a run.
        targeted: Relative error of a removal that is not random; 0 for one that is.
    """
    variance = np.array([np.var(residuals, dtype=np.float64, ddof=1)])
    found = removals(scores[None], slope, variance, n_train, alpha, targeted)
    change, reach = (float(array[0, -1]) if len(scores) else 0.0 for array in found)
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
    changes = -slope.mean * totals
    of_slope = totals * (slope.high - slope.low) / 2
    counts = np.arange(1, scores.shape[1] + 1)
    of_scores = np.sqrt(counts * variances[:, None] / (n_train * alpha * (1 - alpha)))
    spread = TWO_SIDED_95 * np.hypot(of_scores, targeted * changes)
    return changes, np.hypot(of_slope, spread)
