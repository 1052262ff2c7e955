"""Lay out all examples in two dimensions, by UMAP and by PCA, in `maps/METHOD-{kind}.safetensors`.

Each map shows the training and test vectors of one method, which the search stage computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.search.maps import comparable_rows, pca, umap
from engine.build.run import Run
from engine.build.stages.search import search_fingerprint
from engine.store import layout
from engine.store.layout import MAP_KINDS, MapKind
from engine.study.examples import shard_count
from engine.study.methods import scored_methods
from engine.study.reader import StudyReader

CODE = 1
"""Increment when the same vectors would be laid out differently."""


@dataclass(frozen=True)
class Job:
    """Compute one map."""

    root: Path
    algorithm: str
    method: str
    kind: MapKind


def run(run: Run, algorithm: str) -> None:
    """Compute missing maps.

    Stale maps are replaced without asking, because no other file depends on them.
    """
    study = run.study
    wanted = [(method, kind) for method in scored_methods(study, algorithm) for kind in MAP_KINDS]
    jobs = [
        Job(study.root, algorithm, method, kind)
        for method, kind in wanted
        if not _is_current(study, algorithm, method, kind)
    ]
    run.run_remaining("map", algorithm, compute_map, jobs, total=len(wanted))


def _is_current(study: StudyReader, algorithm: str, method: str, kind: MapKind) -> bool:
    path = layout.map_file(study.root, algorithm, method, kind)
    fingerprint = map_fingerprint(study, algorithm, method, kind)
    return path.exists() and store.tensors_fingerprint(path) == fingerprint


def map_fingerprint(study: StudyReader, algorithm: str, method: str, kind: MapKind) -> str:
    """Fingerprint of a map: of the vectors it shows, its kind, the seed and the chosen epochs."""
    vectors, epochs = search_fingerprint(study, algorithm, method), study.spec.search.map_epochs
    chosen = [epochs] if kind == "umap" and epochs != "auto" else []
    return store.fingerprint_of("map", CODE, kind, vectors, study.spec.seed, *chosen)


def compute_map(job: Job) -> None:
    """Worker: lay out training and test examples together."""
    study, algorithm, method = StudyReader.open(job.root), job.algorithm, job.method
    train = [
        store.read_tensors(layout.train_vectors_file(study.root, algorithm, method, shard))[
            "vectors"
        ]
        for shard in range(shard_count(study, "train"))
    ]
    test = store.read_tensors(layout.test_vectors_file(study.root, algorithm, method))["vectors"]
    rows = np.concatenate([comparable_rows(part) for part in (*train, test)])
    if job.kind == "pca":
        positions = pca(rows)
    else:
        epochs = study.spec.search.map_epochs
        positions = umap(rows, study.spec.seed, None if epochs == "auto" else epochs)
    n_train = study.dataset.n_train
    store.write_tensors(
        layout.map_file(study.root, algorithm, method, job.kind),
        {"train": positions[:n_train], "test": positions[n_train:]},
        map_fingerprint(study, algorithm, method, job.kind),
    )
