"""Fit the sizes of effects of one method's scores to the removal runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.evaluation.effect_sizes import (
    TYPICAL,
    EffectSizes,
    Removal,
    fit_sizes,
    fraction_of_subset,
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
    test: RunBank,
    predicted: np.ndarray,
    runs: Sequence[RemovalRun],
) -> tuple[EffectSizes, np.ndarray]:
    """Sizes of effects, and the mean square of each test example's scores, float64 `[n_test]`.

    Without enough removal runs, the sizes are `TYPICAL` ones.

    Args:
        slope: From scores to changes of the output, between random subsets.
        test: The test runs.
        predicted: Calibrated outputs of those runs, `[n_test, runs]`.
        runs: The algorithm's removal runs.
    """
    totals, squares, mean_square = _sums(scores, [run.removed for run in runs])
    noise = _noise(study, algorithm)
    residuals = (test.test.T - predicted).var(axis=1, dtype=np.float64, ddof=1)
    alpha = float(test.masks.mean())
    level, n_train = slope**2 * mean_square, scores.n_train
    chance = np.zeros(scores.n_test) if noise is None else noise / test.seeds.mean()
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
        np.zeros(scores.n_test) if noise is None else noise,
        error,
    )
    return found or replace(TYPICAL, score_error=error), mean_square


def _noise(study: StudyReader, algorithm: str) -> np.ndarray | None:
    """Variance of each test output over the checkpoints, `[n_test]`; None for a single one."""
    outputs = [
        store.read_tensors(layout.outputs_file(study.root, algorithm, n, "test"))["output"]
        for n in range(study.checkpoints(algorithm))
    ]
    return np.var(outputs, axis=0, dtype=np.float64, ddof=1) if len(outputs) > 1 else None


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
