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
    moderated_variance,
    score_error,
)
from engine.attribution.scores.matrix import Scores
from engine.store import layout
from engine.study.reader import StudyReader
from engine.study.removal_runs import RemovalRun


def fit_effects(
    scores: Scores,
    slope: float,
    alpha: float,
    residuals: np.ndarray,
    chance: np.ndarray,
    noise: np.ndarray,
    runs: Sequence[RemovalRun],
) -> tuple[EffectSizes, np.ndarray]:
    """Sizes of effects, and the mean square of each test example's scores, float64 `[n_test]`.

    Without enough removal runs, the sizes are `TYPICAL` ones.

    Args:
        slope: From scores to changes of the output, between random subsets.
        alpha: Share of the training examples in a subset.
        residuals: Variance of actual minus calibrated outputs over test masks, `[n_test]`.
        chance: The part of it that comes from chance in training, `[n_test]`.
        noise: Variance of each output over seeds, `[n_test]`, from `seed_noise`.
        runs: The algorithm's removal runs.
    """
    totals, squares, mean_square = _sums(scores, [run.removed for run in runs])
    n_train, pq = scores.n_train, scores.n_train * alpha * (1 - alpha)
    error = score_error(residuals, chance, slope**2 * mean_square, pq)
    removals = [
        Removal.of(
            slope,
            totals[:, n],
            squares[:, n],
            mean_square,
            np.full(scores.n_test, len(run.removed)),
            n_train,
            alpha,
        )
        for n, run in enumerate(runs)
    ]
    changes, targets = [run.change for run in runs], [run.targets for run in runs]
    found = fit_sizes(removals, changes, targets, noise, error)
    return found or replace(TYPICAL, score_error=error), mean_square


def seed_noise(study: StudyReader, algorithm: str) -> np.ndarray:
    """Moderated variance of each test output over the checkpoints, `[n_test]`."""
    outputs = [
        store.read_tensors(layout.outputs_file(study.root, algorithm, n, "test"))["output"]
        for n in range(study.checkpoints(algorithm))
    ]
    return moderated_variance(np.stack(outputs))


def chance_of_means(test: RepeatedRuns, noise: np.ndarray) -> np.ndarray:
    """Variance of a mask's mean output that comes from chance in training, `[n_test]`.

    Where every mask has one run, that of the checkpoints stands in for it.

    Args:
        test: The test runs.
        noise: From `seed_noise`.
    """
    repeated = test.runs > 1
    if not repeated.any():
        each: np.ndarray = noise / test.runs.mean()
        return each
    runs = test.runs[repeated, None]
    found: np.ndarray = (test.squares[repeated] / (runs - 1) / runs).mean(axis=0)
    return found


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
    for tile in scores.tiles():
        tests = slice(tile.tests.start, tile.tests.stop)
        some = masks[tile.trains.start : tile.trains.stop]
        totals[tests] += tile.scores @ some
        square = np.square(tile.scores)
        squares[tests] += square @ some
        mean_square[tests] += square.sum(axis=1, dtype=np.float64)
    return totals, squares, mean_square / scores.n_train
