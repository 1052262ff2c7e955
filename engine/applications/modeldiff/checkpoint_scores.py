"""Scores from some of an algorithm's checkpoints: a sum of parts, times a weight per column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine import store
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.matrix import Scores
from engine.store import layout
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_features

MOST_BYTES = 2**29
"""Largest sum that is held in memory."""


@dataclass(frozen=True)
class SumOfScores:
    """(Σ share · part) ⊙ weights, with only the part of `Scores` that ModelDiff needs.

    Attributes:
        parts: Scores of single checkpoints, before the out-to-loss gradient.
        shares: The factor of each.
        weights: Mean out-to-loss gradient `[n_train]`.
    """

    parts: Sequence[Scores]
    shares: Sequence[float]
    weights: np.ndarray

    @property
    def n_test(self) -> int:
        return self.parts[0].n_test

    @property
    def n_train(self) -> int:
        return self.parts[0].n_train

    def rows(self, tests: np.ndarray) -> np.ndarray:
        total = sum(
            np.float32(share) * part.rows(tests)
            for share, part in zip(self.shares, self.parts, strict=True)
        )
        return np.asarray(total * self.weights)

    def matmat(self, x: np.ndarray) -> np.ndarray:
        weighted = x * self.weights[:, None]
        return np.asarray(
            sum(
                np.float32(share) * part.matmat(weighted)
                for share, part in zip(self.shares, self.parts, strict=True)
            )
        )

    def rmatmat(self, y: np.ndarray) -> np.ndarray:
        total = sum(
            np.float32(share) * part.rmatmat(y)
            for share, part in zip(self.shares, self.parts, strict=True)
        )
        return np.asarray(total * self.weights[:, None])


def sum_of_checkpoints(
    study: StudyReader, algorithm: str, shares: Mapping[int, float]
) -> SumOfScores | DenseScores:
    """TRAK scores of some checkpoints, each times its share, with the out-to-loss weights of all.

    Args:
        shares: Checkpoint → factor; equal ones that sum to 1 give the checkpoints' own scores.
    """
    weights = np.array(
        store.read_tensors(layout.weighting_file(study.root, algorithm))["out_to_loss"]
    )
    parts = [_of_one(study, algorithm, checkpoint) for checkpoint in shares]
    total = SumOfScores(parts, list(shares.values()), weights)
    if 4 * total.n_test * total.n_train > MOST_BYTES:
        return total
    return DenseScores([total.rows(np.arange(total.n_test))])


def _of_one(study: StudyReader, algorithm: str, checkpoint: int) -> Scores:
    if store.read_json(layout.solver_file(study.root, algorithm))["kind"] != "primal":
        path = layout.dual_file(study.root, algorithm, checkpoint)
        return DenseScores([store.read_tensors(path)["scores"]])
    factors = store.read_tensors(layout.factors_file(study.root, algorithm, checkpoint))["factors"]
    features = read_features(study, algorithm, checkpoint)
    ones = np.ones(study.dataset.n_train, np.float32)
    return FactorScores([features], [factors], ones)
