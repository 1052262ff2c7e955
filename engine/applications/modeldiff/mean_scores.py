"""Scores from some of an algorithm's checkpoints: a mean of parts, times a weight per column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine import store
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.matrix import Scores
from engine.store import layout
from engine.study.examples import shard_count
from engine.study.reader import StudyReader

MOST_BYTES = 2**29
"""Largest mean matrix that is held in memory."""


@dataclass(frozen=True)
class MeanScores:
    """mean(parts) ⊙ weights, with only the part of `Scores` that ModelDiff needs.

    Attributes:
        parts: Scores of single checkpoints, before the out-to-loss gradient.
        weights: Mean out-to-loss gradient `[n_train]`.
    """

    parts: Sequence[Scores]
    weights: np.ndarray

    @property
    def n_test(self) -> int:
        return self.parts[0].n_test

    @property
    def n_train(self) -> int:
        return self.parts[0].n_train

    def rows(self, tests: np.ndarray) -> np.ndarray:
        total = sum((part.rows(tests) for part in self.parts), start=np.float32(0))
        return np.asarray(total * (self.weights / np.float32(len(self.parts))))

    def matmat(self, x: np.ndarray) -> np.ndarray:
        weighted = x * (self.weights[:, None] / np.float32(len(self.parts)))
        return np.asarray(sum(part.matmat(weighted) for part in self.parts))

    def rmatmat(self, y: np.ndarray) -> np.ndarray:
        total = np.asarray(sum(part.rmatmat(y) for part in self.parts))
        return total * (self.weights[:, None] / np.float32(len(self.parts)))


def scores_of_checkpoints(
    study: StudyReader, algorithm: str, checkpoints: Sequence[int]
) -> MeanScores | DenseScores:
    """TRAK scores from these checkpoints only, with the out-to-loss weights of all of them."""
    weights = np.array(
        store.read_tensors(layout.weighting_file(study.root, algorithm))["out_to_loss"]
    )
    parts = [_of_one(study, algorithm, checkpoint) for checkpoint in checkpoints]
    mean = MeanScores(parts, weights)
    if 4 * mean.n_test * mean.n_train > MOST_BYTES:
        return mean
    return DenseScores([mean.rows(np.arange(mean.n_test))])


def _of_one(study: StudyReader, algorithm: str, checkpoint: int) -> Scores:
    if store.read_json(layout.solver_file(study.root, algorithm))["kind"] != "primal":
        path = layout.dual_file(study.root, algorithm, checkpoint)
        return DenseScores([store.read_tensors(path)["scores"]])
    shards = range(shard_count(study, "train"))
    files = [layout.features_file(study.root, algorithm, checkpoint, shard) for shard in shards]
    factors = store.read_tensors(layout.factors_file(study.root, algorithm, checkpoint))["factors"]
    features = [store.read_tensors(file)["features"] for file in files]
    ones = np.ones(study.dataset.n_train, np.float32)
    return FactorScores([features], [factors], ones)
