"""The training examples that support or oppose a prediction most *together*.

    found = strongest_together(study, "test-17", 12)
    found.rows, found.reached[-1] / found.one_by_one[-1]

The strongest examples one by one may leave behind others that teach the same. See
`engine.attribution.trak.joint_removal` for the mathematics. It needs what a study keeps for live
queries: the inverses of some checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine import store
from engine.attribution.scores.row_shards import RowShards
from engine.attribution.trak.joint_removal import (
    RemovalSystem,
    effect_together,
    strongest_first,
)
from engine.build.batches import stored_out_to_loss
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.layout import ROWS_PER_SHARD
from engine.store.text import counted
from engine.study.live_and_maps import read_live, training_feature_shards
from engine.study.names import resolve_algorithm, resolve_rows
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_curvature, read_features, stored_solver

Side = Literal["support", "oppose"]
MOST, SUPPORTERS = 500, 12
"""Training examples of a set, at most and by default."""
_MOST_BYTES = 2**32
"""Features of a checkpoint, which are read once for each example of a set."""


@dataclass(frozen=True)
class StrongestTogether:
    """Training examples whose removal changes a prediction most together.

    Attributes:
        rows: Training rows in the order they were chosen, int64 `[k]`.
        reached: By how much removing the first 1, 2, ... of them changes the output, against it for
            the side that supports, float64 `[k]`, in units of the scores before the soft threshold.
        one_by_one: The same for the k strongest one by one, also removed together.
        checkpoints: Number of checkpoints whose linear systems were used.
    """

    rows: np.ndarray
    reached: np.ndarray
    one_by_one: np.ndarray
    checkpoints: int

    @property
    def ratio(self) -> float:
        """How many times as much the set does as the k strongest one by one; 1 or more."""
        return float(self.reached[-1] / self.one_by_one[-1])


def strongest_together(
    study: StudyReader,
    tests: int | str | Sequence[int | str],
    size: int,
    algorithm: str | None = None,
    side: Side = "support",
) -> StrongestTogether:
    """Choose the training examples that support or oppose a prediction most together, by TRAK.

    Fewer than `size` are found if no further one is on that side.

    Args:
        tests: A test example, or several: then their mean output.

    Raises:
        UnknownName: No such example or algorithm.
        DataloupeError: `size` is not from 1 to 500 or to the number of training examples but one,
            no example is on that side, the study keeps no checkpoint for live queries, or its
            features are too many.
        StoreError: The study is not built far enough.
    """
    algorithm = resolve_algorithm(study, algorithm)
    rows = resolve_rows(study, "test", [tests] if isinstance(tests, int | str) else list(tests))
    most = min(MOST, study.dataset.n_train - 1)
    if not 1 <= size <= most:
        raise DataloupeError(f"size must be from 1 to {most:,}, not {size:,}.")
    live = read_live(study, algorithm)
    if not live.checkpoints:
        raise DataloupeError(
            f"{study.root} keeps no checkpoint of {algorithm} for live queries, and a set that is "
            f"chosen together needs one: {live.reason}."
        )
    sign = 1 if side == "support" else -1
    solver, checkpoints = stored_solver(study, algorithm), range(live.checkpoints)
    weighting = store.read_tensors(layout.weighting_file(study.root, algorithm))
    q = weighting["out_to_loss"].astype(np.float64)
    system_of = _primal_system if solver.kind == "primal" else _dual_system
    systems = [system_of(study, algorithm, checkpoint, rows) for checkpoint in checkpoints]
    chosen, lowered = strongest_first(systems, q, size, sign)
    if not len(chosen):
        raise DataloupeError(f"No training example {side}s this prediction.")
    scores = sign * q * np.mean([system.test[: len(q)] for system in systems], axis=0)
    alone = np.argsort(-scores, kind="stable")[: len(chosen)]
    reached, strongest = sign * lowered, sign * effect_together(systems, q, alone)
    if strongest[-1] > reached[-1]:  # one at a time is not always best
        chosen, reached = alone, strongest
    return StrongestTogether(chosen, reached, strongest, len(systems))


def _dual_system(
    study: StudyReader, algorithm: str, checkpoint: int, tests: np.ndarray
) -> RemovalSystem:
    """With A = √W⁻¹ (√W K √W + λI)⁻¹ √W, the inverse that is stored, Φ H⁻¹ Φᵀ = W⁻¹ − λ W⁻¹ Aᵀ."""
    import torch

    from engine.attribution.trak.linear_system import weight_array
    from engine.attribution.trak.new_examples import dual_ridge, kernel_diagonal, plan_from_json

    path = layout.live_inverse_file(study.root, algorithm, checkpoint)
    inverse = store.read_tensors(path)["inverse"]
    plan = plan_from_json(store.read_metadata(path)["plan"])
    shards = training_feature_shards(study, algorithm, checkpoint)
    diagonal = np.concatenate([kernel_diagonal(shard, plan) for shard in shards])
    solver, q = stored_solver(study, algorithm), stored_out_to_loss(study, algorithm, checkpoint)
    ridge = dual_ridge(torch.from_numpy(diagonal), solver, torch.from_numpy(q))
    weights = weight_array(q, solver).astype(np.float64)
    scores = store.read_tensors(layout.dual_file(study.root, algorithm, checkpoint))["scores"]

    def products(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = -ridge * inverse[rows].T.astype(np.float64)
        found[rows, np.arange(len(rows))] += 1
        found /= weights[:, None]
        return found

    return RemovalSystem(
        products=products,
        test=scores[tests].mean(axis=0, dtype=np.float64),
        curvature=np.arange(len(weights))[:, None],
        scale=np.sqrt(weights),
    )


def _primal_system(
    study: StudyReader, algorithm: str, checkpoint: int, tests: np.ndarray
) -> RemovalSystem:
    from engine.attribution.trak.linear_system import weight_array

    inverse = store.read_tensors(layout.live_inverse_file(study.root, algorithm, checkpoint))
    factors = store.read_tensors(layout.factors_file(study.root, algorithm, checkpoint))["factors"]
    solver, count = stored_solver(study, algorithm), study.dataset.n_train
    shards = list(read_features(study, algorithm, checkpoint))
    curvature, scale = np.arange(count)[:, None], np.ones(count)
    if solver.samples:
        curvature = count + _rows_of_samples(count, solver.samples)
        shards += read_curvature(study, algorithm, checkpoint)
    else:
        q = stored_out_to_loss(study, algorithm, checkpoint)
        scale = np.sqrt(weight_array(q, solver).astype(np.float64))
    every = RowShards.of(shards)
    if 4 * every.shape[0] * every.shape[1] > _MOST_BYTES:
        raise DataloupeError(
            f"Choosing a set together would read {counted(every.shape[0], 'row')} of features for "
            "each of its examples, more than 4 GiB. Take the strongest one by one."
        )

    def times(vectors: np.ndarray) -> np.ndarray:
        """All rows times `[p, k]`."""
        return np.concatenate([np.asarray(shard[:]) @ vectors for shard in shards])

    def products(rows: np.ndarray) -> np.ndarray:
        some = every.take(rows, np.empty((len(rows), every.shape[1]), np.float32))
        return times(inverse["inverse"] @ some.T)

    return RemovalSystem(
        products=products,
        test=times(factors[tests].mean(axis=0)[:, None])[:, 0].astype(np.float64),
        curvature=curvature,
        scale=scale,
    )


def _rows_of_samples(n_train: int, samples: int) -> np.ndarray:
    """Which rows of stored curvature are each example's: int64 `[n_train, samples]`. A shard has
    the first sample of each of its examples first."""
    parts = []
    for start in range(0, n_train, ROWS_PER_SHARD):
        rows = min(ROWS_PER_SHARD, n_train - start)
        parts.append(samples * start + np.arange(samples * rows).reshape(samples, rows).T)
    return np.concatenate(parts)
