"""What removing training examples would do to an output, as far as calibrated scores can say."""

from __future__ import annotations

import math

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
    total = float(np.sum(scores, dtype=np.float64))
    change = -slope.mean * total
    of_slope = total * (slope.high - slope.low) / 2
    of_scores = len(scores) * float(np.var(residuals, dtype=np.float64, ddof=1))
    of_scores /= n_train * alpha * (1 - alpha)
    spread = TWO_SIDED_95 * math.hypot(math.sqrt(of_scores), targeted * change)
    reach = math.hypot(of_slope, spread)
    return Measured(change, change - reach, change + reach)
