"""How far predicted numbers are from the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dashboard.read.studies import Examples


@dataclass(frozen=True)
class NumberErrors:
    """Errors of predicted numbers.

    Attributes:
        test, training: Mean absolute errors.
        explained: Share of the test labels' variance that is predicted (R²); None if they do not
            vary.
    """

    test: float
    training: float
    explained: float | None


def errors_of(tests: Examples, training: Examples) -> NumberErrors:
    """The errors of both splits, from their columns `error` and `label`."""
    error, label = tests.numbers["error"], tests.numbers["label"]
    spread = float(((label - label.mean()) ** 2).sum())
    return NumberErrors(
        float(np.abs(error).mean()),
        float(np.abs(training.numbers["error"]).mean()),
        1 - float((error**2).sum()) / spread if spread > 0 else None,
    )
