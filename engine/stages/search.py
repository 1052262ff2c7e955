"""Rank and index: exact top-k and sums of both signs, and the FAISS index with its recall."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.scores import RowShards, Scores, TopK, Totals, merge, top_k
from engine.execution import run_jobs
from engine.search import (
    attribution_space,
    build_index,
    choose_index,
    index_to_array,
    measure_recall,
)
from engine.stages.run import Run
from engine.stages.trak import scores_made_from
from engine.study import ROWS_PER_SHARD, Progress, Study

CODE = 1
"""Raised whenever the same scores would be ranked or indexed differently."""

RECALL_QUERIES = 200
"""Test examples that recall is measured on, evenly spread."""


@dataclass(frozen=True)
class Job:
    """One algorithm's scores to rank and index."""

    root: Path
    algorithm: str


def run(run: Run, algorithm: str) -> None:
    """Rank and index an algorithm's scores, unless that is done."""
    study = run.study
    done = [study.search_file(algorithm), study.index_file(algorithm)]
    made_from = search_made_from(study, algorithm)
    if done[0].exists():
        store.read_json(done[0], made_from)
    files = [*done, study.top_test_file(algorithm), study.test_vectors_file(algorithm)]
    files.append(study.totals_file(algorithm))
    for shard in range(study.shards("train")):
        files += [
            study.top_train_file(algorithm, shard),
            study.train_vectors_file(algorithm, shard),
        ]
    jobs = [] if all(path.exists() for path in files) else [Job(study.root, algorithm)]
    run.report(Progress("search", algorithm, 1 - len(jobs), 1))

    def on_done(job: Job, result: None) -> None:
        run.report(Progress("search", algorithm, 1, 1))

    run_jobs(rank_and_index, jobs, run.workers, on_done)


def search_made_from(study: Study, algorithm: str) -> str:
    """Fingerprint of the ranking and the index."""
    return store.fingerprint(
        "search", CODE, scores_made_from(study, algorithm), study.spec.search.model_dump()
    )


def rank_and_index(job: Job) -> None:
    """Worker: write the top-k shards, the vectors, the index and last what was measured of it."""
    study = Study.open(job.root)
    scores = study.score_matrix(job.algorithm)
    made_from = search_made_from(study, job.algorithm)
    truth = _rank(study, job.algorithm, scores, made_from)
    spec = study.spec.search
    space = attribution_space(scores, spec.rank, seed=study.spec.seed)
    queries = space.test_vectors()
    store.write_tensors(
        study.test_vectors_file(job.algorithm),
        {"vectors": queries, "singular_values": space.singular_values},
        made_from,
    )
    vectors = []
    for shard, trains in enumerate(_row_ranges(study.dataset.n_train)):
        path = study.train_vectors_file(job.algorithm, shard)
        store.write_tensors(path, {"vectors": space.train_vectors(scores, trains)}, made_from)
        vectors.append(store.read_tensors(path)["vectors"])
    kind, reason = choose_index(study.dataset.n_train, queries.shape[1])
    if spec.index != "auto":
        kind, reason = spec.index, "study.toml asks for it"
    index = build_index(RowShards.of(vectors), kind, seed=study.spec.seed)
    tests = np.unique(np.linspace(0, scores.n_test - 1, RECALL_QUERIES).astype(np.int64))
    sample = TopK(**{name: array[tests] for name, array in asdict(truth).items()})
    # An inverted file is told here how many clusters to search, so it is stored after.
    recall = measure_recall(index, queries[tests], partial(scores.pairs, tests), sample)
    store.write_tensors(
        study.index_file(job.algorithm), {"index": index_to_array(index)}, made_from
    )
    store.write_json(
        study.search_file(job.algorithm),
        {
            "checkpoints": study.checkpoints(job.algorithm),
            "soft_threshold": study.spec.trak.soft_threshold,
            "kind": kind,
            "reason": reason,
            "rank": queries.shape[1],
            "candidates": recall.candidates,
            "recall": recall.recall,
            "recall_at": recall.k,
            "recall_queries": recall.queries,
            "recall_by_candidates": {str(n): value for n, value in recall.table.items()},
        },
        made_from,
    )


def _row_ranges(rows: int) -> list[range]:
    return [
        range(first, min(first + ROWS_PER_SHARD, rows)) for first in range(0, rows, ROWS_PER_SHARD)
    ]


def _rank(study: Study, algorithm: str, scores: Scores, made_from: str) -> TopK:
    """Write the exact top-k and the sums of both sides; return the top-k of the test examples."""
    k = study.spec.search.top_k
    best: TopK | None = None
    totals = Totals.zeros(scores.n_test, scores.n_train)
    for shard, trains in enumerate(_row_ranges(scores.n_train)):
        of_tests, of_trains = top_k(scores, k, trains, totals=totals)
        path = study.top_train_file(algorithm, shard)
        store.write_tensors(path, vars(of_trains), made_from)
        best = of_tests if best is None else merge([best, of_tests])
    assert best is not None
    store.write_tensors(study.top_test_file(algorithm), vars(best), made_from)
    sums = {name: array.astype(np.float32) for name, array in vars(totals).items()}
    store.write_tensors(study.totals_file(algorithm), sums, made_from)
    return best
