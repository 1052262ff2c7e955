"""Rank and index every method's scores for search, in `search/METHOD/`.

From the scores of all examples the stage computes the exact top-k of both signs for every test and
training example (`top/`), sums of both signs (`totals`), low-rank vectors (`vectors/`), and a FAISS
index over them with its measured recall.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.scores.matrix import Scores
from engine.attribution.scores.row_shards import RowShards
from engine.attribution.scores.top_k import TopK, merge, top_k
from engine.attribution.scores.totals import Totals
from engine.attribution.search.attribution_space import attribution_space
from engine.attribution.search.vector_index import (
    build_index,
    choose_index,
    index_to_array,
    measure_recall,
)
from engine.build.run import Run
from engine.build.stages.trak import scores_fingerprint
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD, TRAK
from engine.store.rows import evenly_spread
from engine.study.examples import shard_count
from engine.study.methods import scored_methods
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

CODE = 1
"""Increment when the same scores would be ranked or indexed differently."""

RECALL_QUERIES = 200
"""Number of test examples to measure recall on, evenly spread."""


@dataclass(frozen=True)
class Job:
    """Rank and index one method's scores of an algorithm."""

    root: Path
    algorithm: str
    method: str


def run(run: Run, algorithm: str) -> None:
    """Rank and index the scores of every method where that is not done yet."""
    methods = scored_methods(run.study, algorithm)
    jobs = [
        Job(run.study.root, algorithm, method)
        for method in methods
        if not _is_done(run.study, algorithm, method)
    ]
    run.run_remaining("search", algorithm, rank_and_index, jobs, len(methods))


def _is_done(study: StudyReader, algorithm: str, method: str) -> bool:
    """Whether all files exist. Raises StaleError if they were made from other scores."""
    summary = layout.search_file(study.root, algorithm, method)
    if summary.exists():
        store.read_json(summary, search_fingerprint(study, algorithm, method))
    files = [
        summary,
        layout.index_file(study.root, algorithm, method),
        layout.top_test_file(study.root, algorithm, method),
        layout.test_vectors_file(study.root, algorithm, method),
        layout.totals_file(study.root, algorithm, method),
    ]
    for shard in range(shard_count(study, "train")):
        files += [
            layout.top_train_file(study.root, algorithm, method, shard),
            layout.train_vectors_file(study.root, algorithm, method, shard),
        ]
    return all(path.exists() for path in files)


def search_fingerprint(study: StudyReader, algorithm: str, method: str) -> str:
    """Fingerprint of the ranking and the index."""
    scores = method_fingerprint(study, algorithm, method)
    spec = study.spec.search.model_dump(exclude={"map_epochs"})
    return store.fingerprint_of("search", CODE, scores, spec)


def method_fingerprint(study: StudyReader, algorithm: str, method: str) -> str:
    """Fingerprint of a method's scores."""
    if method == TRAK:
        return scores_fingerprint(study, algorithm)
    return store.json_fingerprint(layout.method_file(study.root, algorithm, method))


def rank_and_index(job: Job) -> None:
    """Worker: write the top-k shards, the vectors, the index and, last, the summary."""
    study = StudyReader.open(job.root)
    algorithm, method = job.algorithm, job.method
    scores = read_score_matrix(study, algorithm, method)
    fingerprint = search_fingerprint(study, algorithm, method)
    truth = _rank(study, algorithm, method, scores, fingerprint)
    spec = study.spec.search
    space = attribution_space(scores, spec.rank, seed=study.spec.seed)
    queries = space.test_vectors()
    store.write_tensors(
        layout.test_vectors_file(study.root, algorithm, method),
        {"vectors": queries, "singular_values": space.singular_values},
        fingerprint,
    )
    vectors = []
    for shard, trains in enumerate(_row_ranges(study.dataset.n_train)):
        path = layout.train_vectors_file(study.root, algorithm, method, shard)
        store.write_tensors(path, {"vectors": space.train_vectors(scores, trains)}, fingerprint)
        vectors.append(store.read_tensors(path)["vectors"])
    kind, reason = choose_index(study.dataset.n_train, queries.shape[1])
    if spec.index != "auto":
        kind, reason = spec.index, "set in study.toml"
    index = build_index(RowShards.of(vectors), kind, seed=study.spec.seed)
    tests = evenly_spread(scores.n_test, RECALL_QUERIES)
    sample = TopK(**{name: array[tests] for name, array in asdict(truth).items()})
    # This sets how many clusters an inverted file searches, so the index is stored afterwards.
    recall = measure_recall(index, queries[tests], partial(scores.pairs, tests), sample)
    store.write_tensors(
        layout.index_file(study.root, algorithm, method),
        {"index": index_to_array(index)},
        fingerprint,
    )
    store.write_json(
        layout.search_file(study.root, algorithm, method),
        {
            "checkpoints": study.checkpoints(algorithm),
            "kind": kind,
            "reason": reason,
            "rank": queries.shape[1],
            "candidates": recall.candidates,
            "recall": recall.recall,
            "recall_at": recall.k,
            "recall_queries": recall.queries,
            "recall_by_candidates": {str(n): value for n, value in recall.table.items()},
        },
        fingerprint,
    )


def _row_ranges(rows: int) -> list[range]:
    return [
        range(first, min(first + ROWS_PER_SHARD, rows)) for first in range(0, rows, ROWS_PER_SHARD)
    ]


def _rank(
    study: StudyReader, algorithm: str, method: str, scores: Scores, fingerprint: str
) -> TopK:
    """Write the exact top-k and the sums of both signs; return the top-k of the test examples."""
    k = study.spec.search.top_k
    best: TopK | None = None
    totals = Totals.zeros(scores.n_test, scores.n_train)
    for shard, trains in enumerate(_row_ranges(scores.n_train)):
        of_tests, of_trains = top_k(scores, k, trains, totals=totals)
        path = layout.top_train_file(study.root, algorithm, method, shard)
        store.write_tensors(path, vars(of_trains), fingerprint)
        best = of_tests if best is None else merge([best, of_tests])
    assert best is not None
    store.write_tensors(
        layout.top_test_file(study.root, algorithm, method), vars(best), fingerprint
    )
    sums = {name: array.astype(np.float32) for name, array in vars(totals).items()}
    store.write_tensors(layout.totals_file(study.root, algorithm, method), sums, fingerprint)
    return best
