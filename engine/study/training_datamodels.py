"""Datamodels of training examples: the other examples that a training output depends on."""

from __future__ import annotations

import numpy as np

from engine import store
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.layout import ROWS_PER_SHARD
from engine.store.records import TrainingDatamodel
from engine.study.examples import shard_count
from engine.study.names import resolve_algorithm, resolve_row
from engine.study.reader import StudyReader


def has_training_datamodels(study: StudyReader, algorithm: str) -> bool:
    """Whether the datamodels of training examples are built."""
    shards = range(shard_count(study, "train"))
    return all(layout.training_datamodels_file(study.root, algorithm, n).exists() for n in shards)


def read_training_datamodel(
    study: StudyReader, train: int | str, algorithm: str | None = None
) -> TrainingDatamodel:
    """The training examples that one training example's output depends on, including itself.

    Raises:
        UnknownName: There is no such example.
        StoreError: study.toml does not request them, or they are not built yet.
    """
    algorithm, row = resolve_algorithm(study, algorithm), resolve_row(study, "train", train)
    if not has_training_datamodels(study, algorithm):
        raise StoreError(
            f"{study.root} has no datamodels of training examples. Set training_targets = true "
            f"under [subset_runs] in study.toml, then: dataloupe build {study.root}"
        )
    shard, place = divmod(row, ROWS_PER_SHARD)
    stored = store.read_tensors(layout.training_datamodels_file(study.root, algorithm, shard))
    inside = slice(*(int(end) for end in stored["indptr"][place : place + 2]))
    rows, weights = np.array(stored["indices"][inside]), np.array(stored["values"][inside])
    itself = rows == row
    return TrainingDatamodel(
        row=row,
        itself=float(weights[itself].sum()),
        rows=rows[~itself],
        weights=weights[~itself],
        bias=float(stored["bias"][place]),
        correlation=float(stored["correlation"][place]),
    )
