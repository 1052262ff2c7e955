"""Which method to prefer, judged by one statistic that is the same for all methods.

The statistic is the mean LDS on two halves of the validation runs. A method whose settings were
chosen on validation runs is cross-fitted: each half is predicted with the settings that the *other*
half chose, so that a choice among many settings does not look like quality. On outputs that are
noise its expectation is 0 for every method.

The default is not simply the best. Of all methods whose statistic is within one standard error of
the best one's, the simplest is preferred (the one-standard-error rule: Breiman et al. 1984,
Classification and Regression Trees, section 3.4.3). The standard error is that of the *difference*,
by a bootstrap that draws the same test examples and runs for both methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.lds import bootstrap_means, spearman

RESAMPLES = 500
LEAST_RUNS = 4
"""Validation runs that can be split: a rank correlation needs two runs in each half."""


@dataclass(frozen=True)
class Validation:
    """Predictions of the validation runs' outputs.

    Attributes:
        predicted: `[t, v]`; those of each half were made with settings that the other half chose.
            Only the order within a row of one half counts.
        optimism: What is subtracted from the LDS, for a method whose predictions were made with
            settings that these runs chose.
    """

    predicted: np.ndarray
    optimism: float = 0.0


def halves(runs: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Split `runs` validation runs in two: bool `[runs]` each; None if they are too few to split.

    Runs alternate, so a bank that grows keeps each run in its half.
    """
    if runs < LEAST_RUNS:
        return None
    even = np.arange(runs) % 2 == 0
    return even, ~even


def validation_lds(found: Validation, actual: np.ndarray) -> float:
    """The statistic: mean LDS of the two halves.

    Args:
        actual: Outputs of the validation runs, `[t, v]`, v being enough for `halves`.
    """
    parts = halves(actual.shape[1])
    assert parts is not None
    each = [spearman(found.predicted[:, half], actual[:, half]).mean() for half in parts]
    return float(np.mean(each)) - found.optimism


def prefer(candidates: Mapping[str, Validation], actual: np.ndarray) -> str:
    """The simplest of the methods within one standard error of the best.

    Args:
        candidates: By name, the simplest first.
        actual: Outputs of the validation runs, `[t, v]`.
    """
    if halves(actual.shape[1]) is None:
        return next(iter(candidates))  # too few runs to tell methods apart
    measured = {name: validation_lds(found, actual) for name, found in candidates.items()}
    best = max(measured, key=lambda name: measured[name])
    draws = {name: _resampled(found, actual) for name, found in candidates.items()}
    for name, value in measured.items():
        error = float(np.std(draws[best] - draws[name], ddof=1))
        if value >= measured[best] - error:
            return name
    raise AssertionError("the best method is within its own standard error")


def _resampled(found: Validation, actual: np.ndarray) -> np.ndarray:
    """The statistic of each bootstrap resample; resample r draws the same for every method."""
    parts = halves(actual.shape[1])
    assert parts is not None
    drawn: np.ndarray = np.mean(
        [
            bootstrap_means(
                np.ascontiguousarray(found.predicted[:, half]),
                np.ascontiguousarray(actual[:, half]),
                RESAMPLES,
                np.random.default_rng(0),
            )
            for half in parts
        ],
        axis=0,
    )
    return drawn
