"""Calibration: how far outputs change for a predicted change of 1.

Scores predict an order; their unit is arbitrary. One slope, fitted to the subset runs of all test
examples, turns predicted changes of the output into actual ones. Then the effect of removing some
examples is a change of the margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.store.errors import DataError

NINETY = 1.6449
"""90 % of a normal distribution lie within this many standard deviations of its mean."""


@dataclass(frozen=True)
class Slope:
    """Least-squares slope of actual on predicted changes.

    Attributes:
        slope: Actual change for a predicted change of 1.
        low, high: Bootstrap interval of `slope`.
        r_squared: Share of the variance of the actual changes that `slope` × predicted explains.
    """

    slope: float
    low: float
    high: float
    r_squared: float


def calibrate(
    predicted: np.ndarray,
    actual: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Slope | None:
    """Fit one slope to all test examples; None where the predictions do not vary.

    Args:
        predicted: A method's predicted outputs of the runs, in its own unit, `[n_test, m]`.
        actual: The outputs of the runs, `[n_test, m]`.
        confidence: Of the interval.
        resamples: Of the bootstrap, which resamples both test examples and runs.
        seed: Of the bootstrap.

    Raises:
        DataError: Shapes differ, there are fewer than three runs, or values are not finite.
    """
    if predicted.shape != actual.shape or predicted.shape[1] < 3:
        raise DataError(
            f"Predicted {list(predicted.shape)} and actual {list(actual.shape)} outputs "
            "[n_test, runs] do not fit together, or are fewer than three runs."
        )
    p, a = predicted.astype(np.float64), actual.astype(np.float64)
    if not (np.isfinite(p).all() and np.isfinite(a).all()):
        raise DataError("Predicted or actual outputs hold NaN or infinite values.")
    p = p - p.mean(axis=1, keepdims=True)
    a = a - a.mean(axis=1, keepdims=True)
    if not p.any():
        return None
    n, m = p.shape
    slope = float((p * a).sum() / (p * p).sum())
    total = float((a * a).sum())
    generator = np.random.default_rng(seed)
    runs = generator.multinomial(m, np.full(m, 1 / m), size=resamples).T.astype(np.float64)
    tests = generator.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    drawn_p, drawn_a = p @ runs, a @ runs
    # Sums of squares and products about the mean of the resampled runs.
    products = (p * a) @ runs - drawn_p * drawn_a / m
    squares = (p * p) @ runs - drawn_p**2 / m
    above, below = np.einsum("rn,nr->r", tests, products), np.einsum("rn,nr->r", tests, squares)
    slopes = above[below > 0] / below[below > 0]
    low, high = np.quantile(slopes, [(1 - confidence) / 2, (1 + confidence) / 2])
    unexplained = float(((a - slope * p) ** 2).sum())
    return Slope(slope, float(low), float(high), 1 - unexplained / total if total else 0.0)
