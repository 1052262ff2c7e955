"""The score matrices of a study, as objects that compute any block of `[n_test, n_train]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from engine import store
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.matrix import Scores
from engine.attribution.scores.packed_rows import unpack
from engine.attribution.scores.row_shards import Rows
from engine.attribution.trak.solver import Solver
from engine.store import layout
from engine.store.layout import TRAK
from engine.study.examples import shard_count
from engine.study.names import resolve_algorithm, resolve_method, resolve_rows
from engine.study.reader import StudyReader


def read_score_matrix(
    study: StudyReader, algorithm: str | None = None, method: str = TRAK
) -> Scores:
    """The score matrix, as an object that computes any block of `[n_test, n_train]`."""
    algorithm = resolve_algorithm(study, algorithm)
    if method != TRAK:
        shards = range(shard_count(study, "test"))
        files = [
            layout.method_scores_file(study.root, algorithm, method, shard) for shard in shards
        ]
        stored = [store.read_tensors(file) for file in files]
        if "indptr" in stored[0]:
            from engine.attribution.scores.sparse import SparseScores, from_stored

            return SparseScores([from_stored(shard, study.dataset.n_train) for shard in stored])
        return DenseScores([shard["scores"] for shard in stored])
    weighting = store.read_tensors(layout.weighting_file(study.root, algorithm))
    scores = unthresholded_scores(study, algorithm, weighting["out_to_loss"])
    return replace(scores, threshold=weighting.get("threshold"))


def unthresholded_scores(
    study: StudyReader, algorithm: str, out_to_loss: np.ndarray
) -> DenseScores | FactorScores:
    """TRAK's scores before the soft threshold.

    Args:
        out_to_loss: Mean out-to-loss gradient `[n_train]`. The stored scores of a dual hold it
            already.
    """
    if store.read_json(layout.solver_file(study.root, algorithm))["kind"] == "primal":
        return read_factor_scores(study, algorithm, study.checkpoints(algorithm), out_to_loss)
    shards = range(shard_count(study, "test"))
    files = [layout.scores_file(study.root, algorithm, shard) for shard in shards]
    return DenseScores([store.read_tensors(file)["scores"] for file in files])


def read_factor_scores(
    study: StudyReader,
    algorithm: str,
    checkpoints: int,
    out_to_loss: np.ndarray,
    threshold: np.ndarray | None = None,
) -> FactorScores:
    """TRAK scores from the first checkpoints, by the primal solver. See `FactorScores`."""
    first = range(checkpoints)
    factors = [layout.factors_file(study.root, algorithm, m) for m in first]
    return FactorScores(
        features=[read_features(study, algorithm, m) for m in first],
        factors=[store.read_tensors(f)["factors"] for f in factors],
        out_to_loss=out_to_loss,
        threshold=threshold,
    )


def read_features(
    study: StudyReader,
    algorithm: str,
    checkpoint: int,
    fingerprint: str | None = None,
    of: str = "features",
) -> list[Rows]:
    """The training features of the primal solver, memory-mapped, in row shards."""
    shards = range(shard_count(study, "train"))
    files = [layout.features_file(study.root, algorithm, checkpoint, shard, of) for shard in shards]
    return [unpack(store.read_tensors(file, fingerprint)) for file in files]


def read_curvature(
    study: StudyReader, algorithm: str, checkpoint: int, fingerprint: str | None = None
) -> list[Rows]:
    """What the primal's Gram matrix is summed over: the training features, or, of a shard of n
    examples, `[samples · n, p]`, the first sample of each example first (`Solver.samples`)."""
    of = "curvature" if stored_solver(study, algorithm).samples else "features"
    return read_features(study, algorithm, checkpoint, fingerprint, of)


def score_rows(
    study: StudyReader,
    tests: Sequence[int] | np.ndarray,
    algorithm: str | None = None,
    method: str | None = None,
) -> np.ndarray:
    """Attributions, float32 `[len(tests), n_train]`. Positive supports, negative opposes."""
    algorithm = resolve_algorithm(study, algorithm)
    rows = resolve_rows(study, "test", tests)
    return read_score_matrix(study, algorithm, resolve_method(study, algorithm, method)).rows(rows)


def stored_solver(study: StudyReader, algorithm: str) -> Solver:
    """The solver that computed the study's scores."""
    stored = store.read_json(layout.solver_file(study.root, algorithm))
    # Solvers stored before there was a choice of storage have none: float32.
    known = {field.name for field in fields(Solver)} & set(stored)
    return Solver(**{name: stored[name] for name in known})
