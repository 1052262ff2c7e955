"""Which training examples each example is most like: an index over embeddings, and the nearest.

The nearest training examples are stored for every test example and for every training example
(itself left out), in row shards. A model that gives no embeddings has none; that is then said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import store
from engine.attribution.search.similarity import (
    checkpoints_to_use,
    choose_kind,
    measure_recall,
    nearest,
)
from engine.attribution.search.vector_index import (
    build_index,
    evenly_spread,
    index_from_array,
    index_to_array,
)
from engine.build.run import Run
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD, SPLITS, Split
from engine.store.records import Progress
from engine.study.examples import shard_count
from engine.study.neighbours import read_embeddings
from engine.study.reader import StudyReader

CODE = 1
"""Raised whenever the same embeddings would be indexed or compared differently."""

NEIGHBOURS = 100
"""How many are stored for every example."""

RECALL_QUERIES = 200
"""Test examples that recall is measured on, evenly spread."""


@dataclass(frozen=True)
class IndexJob:
    """One algorithm's training embeddings to index."""

    root: Path
    algorithm: str


@dataclass(frozen=True)
class Job:
    """One shard of examples whose neighbours are to be found."""

    root: Path
    algorithm: str
    split: Split
    shard: int


def run(run: Run, algorithm: str) -> None:
    """Make what is missing of an algorithm's index and neighbours."""
    study = run.study
    summary = layout.similarity_file(study.root, algorithm)
    fingerprint = neighbours_fingerprint(study, algorithm)
    if summary.exists():
        store.read_json(summary, fingerprint)
    run.report(Progress("neighbours", algorithm, 0, 1))
    if used_checkpoints(study, algorithm) == 0:
        architecture = study.algorithms[algorithm].architecture
        reason = f"the architecture {architecture!r} has no method `embed`"
        _write_summary(study, algorithm, {"checkpoints": 0, "reason": reason}, fingerprint)
    else:
        _index_and_search(run, algorithm, fingerprint)
    run.report(Progress("neighbours", algorithm, 1, 1))


def _index_and_search(run: Run, algorithm: str, fingerprint: str) -> None:
    study = run.study
    index = layout.neighbours_index_file(study.root, algorithm)
    index_jobs = [] if store.is_there(index, fingerprint) else [IndexJob(study.root, algorithm)]
    jobs = [
        Job(study.root, algorithm, split, shard)
        for split in SPLITS
        for shard in range(shard_count(study, split))
        if not store.is_there(
            layout.neighbours_file(study.root, algorithm, split, shard), fingerprint
        )
    ]
    run.run_jobs(build, index_jobs, lambda job, result: None)
    run.run_jobs(find, jobs, lambda job, result: None)
    _write_summary(study, algorithm, store.read_metadata(index), fingerprint)


def _write_summary(
    study: StudyReader, algorithm: str, content: dict[str, Any], fingerprint: str
) -> None:
    path = layout.similarity_file(study.root, algorithm)
    if not path.exists():
        store.write_json(path, content, fingerprint)


def used_checkpoints(study: StudyReader, algorithm: str) -> int:
    """How many checkpoints likeness is the mean over; 0 where they give no embeddings."""
    outputs = store.read_tensors(layout.outputs_file(study.root, algorithm, 0, "train"))
    if "embeddings" not in outputs:
        return 0
    n_train, width = outputs["embeddings"].shape
    return checkpoints_to_use(width, study.checkpoints(algorithm), n_train)


def neighbours_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the index and of all neighbours."""
    used = range(used_checkpoints(study, algorithm))
    return store.fingerprint_of(
        "neighbours",
        CODE,
        [outputs_fingerprint(study, algorithm, m) for m in used],
        study.spec.seed,
    )


def build(job: IndexJob) -> None:
    """Worker: index the training embeddings and measure what the index misses."""
    study = StudyReader.open(job.root)
    used = used_checkpoints(study, job.algorithm)
    train, test = (read_embeddings(study, split, used, job.algorithm) for split in SPLITS)
    kind, reason = choose_kind(train.shape[0])
    index = build_index(train, kind, seed=study.spec.seed)
    tests = evenly_spread(test.shape[0], RECALL_QUERIES)
    k = min(NEIGHBOURS, train.shape[0])
    recall = measure_recall(index, train, test.rows(tests), k)
    metadata = {
        "checkpoints": used,
        "dimensions": train.shape[1],
        "kind": kind,
        "reason": reason,
        "candidates": recall.candidates,
        "recall": recall.recall,
        "recall_at": k,
        "recall_queries": len(tests),
    }
    store.write_tensors(
        layout.neighbours_index_file(study.root, job.algorithm),
        {"index": index_to_array(index)},
        neighbours_fingerprint(study, job.algorithm),
        metadata,
    )


def find(job: Job) -> None:
    """Worker: the nearest training examples of one shard of examples."""
    study = StudyReader.open(job.root)
    path = layout.neighbours_index_file(study.root, job.algorithm)
    metadata = store.read_metadata(path)
    index = index_from_array(store.read_tensors(path)["index"])
    used = metadata["checkpoints"]
    embeddings = read_embeddings(study, "train", used, job.algorithm)
    start = job.shard * ROWS_PER_SHARD
    rows = range(start, min(start + ROWS_PER_SHARD, study.dataset.rows(job.split)))
    queries = read_embeddings(study, job.split, used, job.algorithm).rows(rows)
    itself = np.array(rows) if job.split == "train" else None
    k = min(NEIGHBOURS, embeddings.shape[0] - (itself is not None))
    found = nearest(index, embeddings, queries, k, metadata["candidates"], itself)
    store.write_tensors(
        layout.neighbours_file(study.root, job.algorithm, job.split, job.shard),
        {"index": found.index, "similarity": found.similarity},
        neighbours_fingerprint(study, job.algorithm),
    )
