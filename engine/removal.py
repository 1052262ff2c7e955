"""What removing training examples would do to an output, as far as calibrated scores can say."""

from __future__ import annotations

import math

import numpy as np

from engine.quality import Measured

TWO_SIDED_95 = 1.96


def removal(
    scores: np.ndarray, slope: Measured, residuals: np.ndarray, n_train: int, alpha: float
) -> Measured:
    """Change of the expected output of one test example, with its 95 % interval.

    The output is taken for linear in who is trained on, Σ_i β_i over the training set, with
    β_i = slope · score_i + e_i. Over random masks of a share α the errors sum to a variance of
    α(1 − α) Σ_i e_i², so the residuals of held-out runs give the mean e_i², and removing k
    examples adds k of them to the variance that the slope's interval brings. Runs' own luck is in
    the residuals too, so the interval is rather too wide for the mean of many retrainings; it is no
    interval for a single one. It knows nothing of having picked the largest scores.

    Args:
        scores: Of the examples removed `[k]`.
        slope: Change of the output for a score of 1.
        residuals: Actual less predicted output of this test example on the test runs `[runs]`;
            two or more.
        n_train: Training examples in all.
        alpha: Share of them in a run.
    """
    total = float(np.sum(scores, dtype=np.float64))
    of_slope = total * (slope.high - slope.low) / 2
    error = float(np.var(residuals, dtype=np.float64, ddof=1)) / (n_train * alpha * (1 - alpha))
    reach = math.hypot(of_slope, TWO_SIDED_95 * math.sqrt(len(scores) * error))
    change = -slope.mean * total
    return Measured(change, change - reach, change + reach)
