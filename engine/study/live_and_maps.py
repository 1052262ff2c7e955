"""The files for live queries, and the maps of the attribution space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine import store
from engine.store import layout
from engine.store.layout import MapKind
from engine.store.records import Live
from engine.study.examples import shard_count
from engine.study.names import resolve_algorithm, resolve_method
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_features, stored_solver


def has_live(study: StudyReader, algorithm: str) -> bool:
    """Whether the live stage is built, so it is known if new examples can be attributed."""
    return layout.live_file(study.root, algorithm).exists()


def read_live(study: StudyReader, algorithm: str | None = None) -> Live:
    """The record of what is kept for live queries. Raises StoreError before it is built."""
    return Live(
        **store.read_json(layout.live_file(study.root, resolve_algorithm(study, algorithm)))
    )


def keeps_checkpoints(study: StudyReader, algorithm: str) -> bool:
    """Whether checkpoints are kept for live queries, so what is not stored can be computed."""
    return has_live(study, algorithm) and bool(read_live(study, algorithm).checkpoints)


def has_map(study: StudyReader, algorithm: str, method: str, kind: MapKind) -> bool:
    """Whether a map of this method's attribution space is built."""
    return layout.map_file(study.root, algorithm, method, kind).exists()


def read_map(
    study: StudyReader,
    kind: MapKind = "umap",
    algorithm: str | None = None,
    method: str | None = None,
) -> dict[str, np.ndarray]:
    """Position of every example in the plane: `train`, `test` float32 `[n, 2]`, memory-mapped.

    Raises StoreError before it is built.
    """
    algorithm = resolve_algorithm(study, algorithm)
    return store.read_tensors(
        layout.map_file(study.root, algorithm, resolve_method(study, algorithm, method), kind)
    )


def training_feature_files(study: StudyReader, algorithm: str, checkpoint: int) -> list[Path]:
    """Files with the training features of a dual solver; empty for the primal solver."""
    if stored_solver(study, algorithm).kind == "primal":
        return []
    shards = range(shard_count(study, "train"))
    return [layout.live_traces_file(study.root, algorithm, checkpoint, shard) for shard in shards]


def training_feature_paths(study: StudyReader, algorithm: str, checkpoint: int) -> list[Path]:
    """Files with the training features that live queries read, with every solver."""
    files = training_feature_files(study, algorithm, checkpoint)
    if files:
        return files
    shards = range(shard_count(study, "train"))
    return [layout.features_file(study.root, algorithm, checkpoint, shard) for shard in shards]


def training_feature_shards(
    study: StudyReader, algorithm: str, checkpoint: int
) -> list[dict[str, Any]]:
    """Memory-mapped features of the training examples at a kept checkpoint."""
    files = training_feature_files(study, algorithm, checkpoint)
    if not files:
        return [{"features": rows} for rows in read_features(study, algorithm, checkpoint)]
    return [store.read_tensors(path) for path in files]
