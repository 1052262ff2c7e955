"""Rank and index every method's scores for search, in `search/METHOD/`.

From the scores of all examples the stage computes the exact top-k of both signs for every test and
training example (`top/`), sums of both signs (`totals`), low-rank vectors (`vectors/`), and a FAISS
index over them with its measured recall.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from engine import store
from engine.attribution.scores.read_ahead import Seconds
from engine.attribution.scores.row_shards import RowShards
from engine.attribution.scores.strongest import TopK
from engine.attribution.search.attribution_space import attribution_space
from engine.attribution.search.vector_index import (
    build_index,
    choose_index,
    index_to_array,
    measure_recall,
)
from engine.build import ranking
from engine.build.run import Run
from engine.build.stages.trak import scores_fingerprint
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD, TRAK
from engine.store.records import Progress
from engine.store.rows import evenly_spread, ranges
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
    study, methods = run.study, scored_methods(run.study, algorithm)
    jobs = [
        Job(study.root, algorithm, method)
        for method in methods
        if not _is_done(study, algorithm, method)
    ]
    parts = [part for job in jobs for part in _parts(study, algorithm, job.method)]
    missing = ranking.missing(parts)
    each = len(_parts(study, algorithm, TRAK)) + 1
    total = each * len(methods)
    done = total - len(jobs) - len(missing)
    seconds = Seconds()
    run.report(Progress("search", algorithm, done, total))

    def on_ranked(part: ranking.Part, spent: Seconds) -> None:
        nonlocal done
        done += 1
        seconds.add(spent)
        run.report(Progress("search", algorithm, done, total))

    run.run_jobs(ranking.rank_part, missing, on_ranked)
    scores = sum(len(part.trains) for part in missing)
    note = ranking.speed_note(seconds, scores * study.dataset.n_test)
    if note:
        run.report(Progress("search", algorithm, done, total, note))
    run.run_remaining("search", algorithm, rank_and_index, jobs, total)


def _parts(study: StudyReader, algorithm: str, method: str) -> list[ranking.Part]:
    fingerprint = search_fingerprint(study, algorithm, method)
    return ranking.parts_of(study.root, algorithm, method, fingerprint, study.dataset.n_train)


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
    """Worker: rank what is not ranked yet; write the vectors, the index and, last, the summary."""
    study = StudyReader.open(job.root)
    algorithm, method = job.algorithm, job.method
    scores = read_score_matrix(study, algorithm, method)
    fingerprint = search_fingerprint(study, algorithm, method)
    parts = _parts(study, algorithm, method)
    for part in ranking.missing(parts):
        ranking.rank_part(part)
    truth = ranking.join(parts, scores.n_test)
    spec = study.spec.search
    space = attribution_space(scores, spec.rank, seed=study.spec.seed)
    queries = space.test_vectors()
    store.write_tensors(
        layout.test_vectors_file(study.root, algorithm, method),
        {"vectors": queries, "singular_values": space.singular_values},
        fingerprint,
    )
    vectors = []
    for shard, trains in enumerate(ranges(range(study.dataset.n_train), ROWS_PER_SHARD)):
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
