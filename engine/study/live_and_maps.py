"""What is kept for live queries, and the maps of the attribution space."""

from __future__ import annotations

import numpy as np

from engine import store
from engine.store import layout
from engine.store.layout import (
    MapKind,
)
from engine.store.records import (
    Live,
)
from engine.study.names import resolve_algorithm, resolve_method
from engine.study.reader import StudyReader


def has_live(study: StudyReader, algorithm: str) -> bool:
    """Whether it is decided if examples from outside can be attributed."""
    return layout.live_file(study.root, algorithm).exists()


def read_live(study: StudyReader, algorithm: str | None = None) -> Live:
    """What is kept for examples from outside. Raises StoreError before it is built."""
    return Live(
        **store.read_json(layout.live_file(study.root, resolve_algorithm(study, algorithm)))
    )


def has_map(study: StudyReader, algorithm: str, method: str, kind: MapKind) -> bool:
    """Whether a map of this method's attribution space is drawn."""
    return layout.map_file(study.root, algorithm, method, kind).exists()


def read_map(
    study: StudyReader,
    kind: MapKind = "umap",
    algorithm: str | None = None,
    method: str | None = None,
) -> dict[str, np.ndarray]:
    """Where every example lies in the plane: `train`, `test` float32 `[n, 2]`, memory-mapped.

    Raises StoreError before it is built.
    """
    algorithm = resolve_algorithm(study, algorithm)
    return store.read_tensors(
        layout.map_file(study.root, algorithm, resolve_method(study, algorithm, method), kind)
    )
