"""How predicted changes of the margin compare with actual ones, over verifications."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.applications.verification.record import Verification


def predicted_and_actual(
    verifications: Iterable[Verification], method: str | None = None
) -> dict[str, np.ndarray]:
    """Predicted and actual mean changes of the margin over verifications.

    Args:
        method: Only predictions by this method; None: all.

    Returns:
        `predicted`, `actual` float64 `[n]`, and `test`, `removed` int64 `[n]`: the test row, and
        how many were removed.
    """
    rows = [
        (outcome.predicted.mean, outcome.change, outcome.test, len(one.removed))
        for one in verifications
        if method is None or one.method == method
        for outcome in one.outcomes
        if outcome.predicted is not None
    ]
    predicted, actual, test, removed = zip(*rows, strict=True) if rows else ((), (), (), ())
    return {
        "predicted": np.array(predicted, np.float64),
        "actual": np.array(actual, np.float64),
        "test": np.array(test, np.int64),
        "removed": np.array(removed, np.int64),
    }


def agreement(predicted: np.ndarray, actual: np.ndarray) -> tuple[float, float] | None:
    """(slope through 0 of actual on predicted changes, Pearson's correlation).

    None for fewer than three, or where either does not vary.
    """
    if len(predicted) < 3 or np.ptp(predicted) == 0 or np.ptp(actual) == 0:
        return None
    slope = float(predicted @ actual / (predicted @ predicted))
    return slope, float(np.corrcoef(predicted, actual)[0, 1])
