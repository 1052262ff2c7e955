"""Fit the sizes of effects of one method's scores to the removal runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine import store
from engine.attribution.evaluation.ceiling import RepeatedRuns
from engine.attribution.evaluation.effect_sizes import (
    TYPICAL,
    EffectSizes,
    Removal,
    fit_sizes,
    fraction_of_subset,
    moderated_variance,
    score_error,
)
from engine.attribution.scores.matrix import Scores
from engine.store import layout
from engine.study.reader import StudyReader
from engine.study.removal_runs import RemovalRun


def fit_effects(
    study: StudyReader,
    algorithm: str,
    scores: Scores,
    slope: float,
    test: RepeatedRuns,
    masks: np.ndarray,
    predicted: np.ndarray,
    runs: Sequence[RemovalRun],
) -> tuple[EffectSizes, np.ndarray]:
    """Sizes of effects, and the mean square of each test example's scores, float64 `[n_test]`.

    Without enough removal runs, the sizes are `TYPICAL` ones.

    Args:
        slope: From scores to changes of the output, between random subsets.
        test: The test runs.
        masks: Of those runs, `[runs, n_train]`.
        predicted: Calibrated outputs of those runs, `[n_test, runs]`.
        runs: The algorithm's removal runs.
    """
    totals, squares, mean_square = _sums(scores, [run.removed for run in runs])
    noise = _noise(study, algorithm)
    residuals = (test.means.T - predicted).var(axis=1, dtype=np.float64, ddof=1)
    alpha, n_train = float(masks.mean()), scores.n_train
    level, chance = slope**2 * mean_square, _chance(test, noise)
    error = score_error(residuals, chance, level, n_train * alpha * (1 - alpha))
    removals = [
        Removal(
            slope * totals[:, n],
            slope**2 * squares[:, n],
            level,
            count := np.full(scores.n_test, float(len(run.removed))),
            fraction_of_subset(count, n_train, alpha),
        )
        for n, run in enumerate(runs)
    ]
    found = fit_sizes(
        removals,
        [run.change for run in runs],
        [run.targets for run in runs],
        noise,
        error,
    )
    return found or replace(TYPICAL, score_error=error), mean_square


def _chance(test: RepeatedRuns, noise: np.ndarray) -> np.ndarray:
    """Variance of a mask's mean output that comes from chance in training, `[n_test]`.

    Where every mask has one run, that of the checkpoints stands in for it.
    """
    repeated = test.runs > 1
    if not repeated.any():
        each: np.ndarray = noise / test.runs.mean()
        return each
    runs = test.runs[repeated, None]
    found: np.ndarray = (test.squares[repeated] / (runs - 1) / runs).mean(axis=0)
    return found


def _noise(study: StudyReader, algorithm: str) -> np.ndarray:
    """Moderated variance of each test output over the checkpoints, `[n_test]`."""
    outputs = [
        store.read_tensors(layout.outputs_file(study.root, algorithm, n, "test"))["output"]
        for n in range(study.checkpoints(algorithm))
    ]
    return moderated_variance(np.stack(outputs))


def _sums(
    scores: Scores, removed: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each test example: sums of the scores of each set and of their squares, `[n_test, sets]`,
    and the mean square of all scores, `[n_test]`; all float64."""
    masks = np.zeros((scores.n_train, len(removed)), np.float32)
    for n, rows in enumerate(removed):
        masks[rows, n] = 1
    totals, squares = (np.zeros((scores.n_test, len(removed))) for _ in range(2))
    mean_square = np.zeros(scores.n_test)
    for start, block in scores.blocks():
        some = masks[start : start + block.shape[1]]
        totals += block @ some
        square = np.square(block)
        squares += square @ some
        mean_square += square.sum(axis=1, dtype=np.float64)
    return totals, squares, mean_square / scores.n_train
