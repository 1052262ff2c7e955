"""Find each example's nearest training examples by the cosine similarity of their embeddings.

The stage reads the checkpoints' embeddings and writes to `neighbours/`: a FAISS index of the
training embeddings, row shards with the nearest training examples of every test and training
example (itself excluded), and `similarity.json` with the index's recall. Models without embeddings
only get `similarity.json`, which says so.
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
from engine.attribution.search.vector_index import build_index, index_from_array, index_to_array
from engine.build.run import Run
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD, SPLITS, Split
from engine.store.records import Progress
from engine.store.rows import evenly_spread
from engine.study.examples import shard_count
from engine.study.neighbours import read_embeddings
from engine.study.reader import StudyReader

CODE = 1
"""Increment when the same embeddings would be indexed or compared differently."""

NEIGHBOURS = 100
"""Nearest training examples to store for each example."""

RECALL_QUERIES = 200
"""Number of test examples to measure recall on, evenly spread."""


@dataclass(frozen=True)
class IndexJob:
    """Index one algorithm's training embeddings."""

    root: Path
    algorithm: str


@dataclass(frozen=True)
class Job:
    """Find the neighbors of one shard of examples."""

    root: Path
    algorithm: str
    split: Split
    shard: int


def run(run: Run, algorithm: str) -> None:
    """Compute an algorithm's missing index and neighbor files."""
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
    """Number of checkpoints to average similarities over; 0 if the models have no embeddings."""
    outputs = store.read_tensors(layout.outputs_file(study.root, algorithm, 0, "train"))
    if "embeddings" not in outputs:
        return 0
    n_train, width = outputs["embeddings"].shape
    return checkpoints_to_use(width, study.checkpoints(algorithm), n_train)


def neighbours_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the index and of all neighbors."""
    used = range(used_checkpoints(study, algorithm))
    return store.fingerprint_of(
        "neighbours",
        CODE,
        [outputs_fingerprint(study, algorithm, m) for m in used],
        study.spec.seed,
    )


def build(job: IndexJob) -> None:
    """Worker: index the training embeddings and measure the index's recall."""
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
    """Worker: find the nearest training examples of one shard of examples."""
    study = StudyReader.open(job.root)
    path = layout.neighbours_index_file(study.root, job.algorithm)
    metadata = store.read_metadata(path)
    index = index_from_array(store.read_tensors(path)["index"])
    used = metadata["checkpoints"]
    embeddings = read_embeddings(study, "train", used, job.algorithm)
    start = job.shard * ROWS_PER_SHARD
    rows = range(start, min(start + ROWS_PER_SHARD, study.dataset.rows(job.split)))
    queries = read_embeddings(study, job.split, used, job.algorithm).rows(rows)
    excluded = np.array(rows) if job.split == "train" else None
    k = min(NEIGHBOURS, embeddings.shape[0] - (excluded is not None))
    found = nearest(index, embeddings, queries, k, metadata["candidates"], excluded)
    store.write_tensors(
        layout.neighbours_file(study.root, job.algorithm, job.split, job.shard),
        {"index": found.index, "similarity": found.similarity},
        neighbours_fingerprint(study, job.algorithm),
    )
