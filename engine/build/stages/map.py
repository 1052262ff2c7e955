"""Draw maps: where every example lies in the plane, for every method, by UMAP and by PCA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.search.maps import common_footing, pca, umap
from engine.build.run import Run
from engine.build.stages.search import search_fingerprint
from engine.store import layout
from engine.store.layout import MAP_KINDS, MapKind
from engine.study.examples import shard_count
from engine.study.methods import scored_methods
from engine.study.reader import StudyReader

CODE = 1
"""Raised whenever the same attribution space would be drawn otherwise."""


@dataclass(frozen=True)
class Job:
    """One map."""

    root: Path
    algorithm: str
    method: str
    kind: MapKind


def run(run: Run, algorithm: str) -> None:
    """Draw what is missing.

    A map of other scores is replaced without being asked about: nothing is made from it.
    """
    study = run.study
    wanted = [(method, kind) for method in scored_methods(study, algorithm) for kind in MAP_KINDS]
    jobs = [
        Job(study.root, algorithm, method, kind)
        for method, kind in wanted
        if not _is_drawn(study, algorithm, method, kind)
    ]
    run.finish("map", algorithm, draw, jobs, total=len(wanted))


def _is_drawn(study: StudyReader, algorithm: str, method: str, kind: MapKind) -> bool:
    path = layout.map_file(study.root, algorithm, method, kind)
    fingerprint = map_fingerprint(study, algorithm, method, kind)
    return path.exists() and store.tensors_fingerprint(path) == fingerprint


def map_fingerprint(study: StudyReader, algorithm: str, method: str, kind: MapKind) -> str:
    """Fingerprint of a map: the attribution space it shows."""
    space = search_fingerprint(study, algorithm, method)
    return store.fingerprint_of("map", CODE, kind, space, study.spec.seed)


def draw(job: Job) -> None:
    """Worker: place train and test together."""
    study, algorithm, method = StudyReader.open(job.root), job.algorithm, job.method
    train = [
        store.read_tensors(layout.train_vectors_file(study.root, algorithm, method, shard))[
            "vectors"
        ]
        for shard in range(shard_count(study, "train"))
    ]
    test = store.read_tensors(layout.test_vectors_file(study.root, algorithm, method))["vectors"]
    rows = np.concatenate([common_footing(part) for part in (*train, test)])
    place = pca(rows) if job.kind == "pca" else umap(rows, study.spec.seed)
    n_train = study.dataset.n_train
    store.write_tensors(
        layout.map_file(study.root, algorithm, method, job.kind),
        {"train": place[:n_train], "test": place[n_train:]},
        map_fingerprint(study, algorithm, method, job.kind),
    )
