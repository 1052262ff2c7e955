"""Search in attribution space: a FAISS index of train vectors, with exact re-ranking.

A score is about (test vector)·(train vector), see `attribution_space`. An inner-product search with
a test example's vector q and with −q finds candidates that support and oppose it. Their exact
scores decide the order, so the index can miss an example but never misrank one. `measure_recall`
measures how many it misses.

Importing this module imports neither torch nor FAISS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from engine.attribution.scores.strongest import TopK
from engine.attribution.scores.top_k import top_k_among
from engine.store.errors import StoreError
from engine.store.rows import ranges

Kind = Literal["flat", "ivf", "sq", "pq"]
Exact = Callable[[np.ndarray], np.ndarray]
"""Computes exact scores of candidates: training rows `[t, c]` → `[t, c]`."""

GOAL = 0.99
"""The recall that `measure_recall` aims for."""

_TRAINING_ROWS = 64
"""Vectors for each centroid of k-means."""
_ADD_ROWS = 65_536


def choose_index(n_train: int, rank: int) -> tuple[Kind, str]:
    """Choose the kind of index; return it with the reason, for people.

    Measured on TRAK scores of 50,000 CIFAR-10 pictures (rank 256, top 100 of both signs, 1,600
    candidates): `sq` has the recall of `flat` (.990) in a quarter of the memory and two thirds of
    the time; `pq` has .994 with 6,400 candidates in a sixteenth of the memory. `ivf` is not chosen:
    lengths of train vectors differ too much for clusters to show where products are large (rank
    512: .80 with an eighth of the clusters searched, .88 with a quarter).
    """
    if n_train <= 100_000:
        return "flat", f"{n_train:,} training examples are few enough to compare with all of them"
    if n_train * rank <= 8 * 2**30:
        return "sq", f"{n_train:,} training examples fit in memory at one byte a dimension"
    return "pq", f"{n_train:,} training examples fit in memory only at one byte every 4 dimensions"


class Vectors(Protocol):
    """Vectors `[n, r]` that are read as float32, some rows at a time."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, rows: range, out: np.ndarray) -> np.ndarray:
        """Copy consecutive rows to `out` and return it."""

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy rows in any order to `out` and return it."""


def build_index(vectors: Vectors, kind: Kind, seed: int) -> Any:
    """Build an inner-product index over vectors of training examples.

    Args:
        vectors: `[n_train, r]`, at least 2; row i gets id i.
        kind: `flat` compares a query with all vectors. So do `sq` and `pq`, which keep one byte
            per dimension (scalar quantization) or per 4 dimensions (product quantization). `ivf`
            compares only with vectors of the nearest k-means clusters.
        seed: Of k-means and of the rows that it and the quantizers are trained on.

    Returns:
        A `faiss.Index`. The same vectors, kind and seed give the same bytes.
    """
    import faiss

    n, rank = vectors.shape
    lists = max(1, min(int(4 * n**0.5), n // _TRAINING_ROWS))
    parts = max(d for d in range(1, max(1, rank // 4) + 1) if rank % d == 0)
    bits = min(8, max(1, n.bit_length() - 1))
    factory = {"flat": "Flat", "ivf": f"IVF{lists},Flat", "sq": "SQ8", "pq": f"PQ{parts}x{bits}"}
    with _one_thread():
        index: Any = faiss.index_factory(rank, factory[kind], faiss.METRIC_INNER_PRODUCT)
        if kind == "pq":
            index.pq.cp.seed = seed
            index.do_polysemous_training = False  # slow, and only needed for Hamming search
        if kind == "ivf":
            index.cp.seed = seed
            index.nprobe = max(1, lists // 8)
        if kind != "flat":
            sample = min(n, _TRAINING_ROWS * max(lists, 256))
            chosen = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
            index.train(vectors.take(chosen, np.empty((sample, rank), np.float32)))
        for rows in ranges(range(n), _ADD_ROWS):
            index.add(vectors.read(rows, np.empty((len(rows), rank), np.float32)))
    return index


def index_to_array(index: Any) -> np.ndarray:
    """An index as bytes, uint8 `[size]`, which can be stored like any tensor."""
    import faiss

    array: np.ndarray = faiss.serialize_index(index)
    return array


def index_from_array(array: np.ndarray) -> Any:
    """The index that `index_to_array` wrote.

    Raises:
        StoreError: The bytes are not those of an index.
    """
    import faiss

    try:
        return faiss.deserialize_index(np.ascontiguousarray(array))
    except RuntimeError as error:
        raise StoreError("The search index is not a complete FAISS index.") from error


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS adds up in the order in which its threads finish; one thread has only one order."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


# --- queries -----------------------------------------------------------------------------------


def search(index: Any, queries: np.ndarray, exact: Exact, k: int, candidates: int) -> TopK:
    """Find the k training examples that support and the k that oppose each query most.

    One search of the index, with the queries and their negatives, gives `candidates` of each sign.
    Their exact scores decide which are returned.

    Args:
        index: From `build_index`.
        queries: Test vectors `[t, r]`.
        exact: Computes exact scores, such as `partial(scores.pairs, tests)`.
        k: How many of each sign.
        candidates: How many of each sign are re-ranked, at least k.
    """
    candidates = min(candidates, index.ntotal)
    both = np.concatenate([queries, -queries]).astype(np.float32, copy=False)
    _, found = index.search(both, candidates)
    found = np.concatenate(np.split(found, 2), axis=1)
    # An inverted file that has no more vectors fills up with -1.
    scores = np.where(found < 0, np.float32(0), exact(np.maximum(found, 0)))
    support = top_k_among(scores[:, :candidates], found[:, :candidates], k)
    oppose = top_k_among(scores[:, candidates:], found[:, candidates:], k)
    return TopK(
        support.support_index, support.support_score, oppose.oppose_index, oppose.oppose_score
    )


def candidates_for(k: int, measured: Mapping[str, Any]) -> int:
    """How many candidates to re-rank for the top k: in proportion to the measurement.

    Args:
        k: How many of each sign are wanted.
        measured: With `candidates`, and `recall_at`, the k for which they were measured.
    """
    return int(-(-k * measured["candidates"] // measured["recall_at"]))


# --- recall ------------------------------------------------------------------------------------


def recall_at_k(found: TopK, truth: TopK) -> float:
    """Share of the true top-k of both signs that was found; 1 if there is nothing to find."""
    hits = total = 0
    for mine, true in (
        (found.support_index, truth.support_index),
        (found.oppose_index, truth.oppose_index),
    ):
        is_there = true >= 0
        hits += int(((true[:, :, None] == mine[:, None, :]).any(axis=2) & is_there).sum())
        total += int(is_there.sum())
    return hits / total if total else 1.0


@dataclass(frozen=True)
class Recall:
    """The measured recall, and the number of candidates that follows from it.

    Attributes:
        candidates: The smallest number that reaches `GOAL`; if none does, the largest tried.
        recall: Recall at k with that many candidates.
        k: How many of each sign were looked for.
        queries: Number of test examples it was measured on.
        table: Number of candidates → recall, for the index as it was left.
    """

    candidates: int
    recall: float
    k: int
    queries: int
    table: dict[int, float]


def measure_recall(
    index: Any, queries: np.ndarray, exact: Exact, truth: TopK, most_candidates: int = 16_384
) -> Recall:
    """Find the smallest number of candidates, from k up by doubling, whose recall reaches `GOAL`.

    An `ivf` index that does not reach it is set to search twice as many clusters, and so on. The
    number of clusters is stored with the index.

    Args:
        index: From `build_index`.
        queries: Test vectors of a sample of test examples, `[t, r]`.
        exact: Computes their exact scores, as for `search`.
        truth: Their exact top-k.
        most_candidates: The largest number to try (at most the number of vectors).
    """
    k = truth.support_index.shape[1]
    most = min(max(most_candidates, k), index.ntotal)
    table: dict[int, float] = {}
    candidates = min(k, most)
    while True:
        table[candidates] = recall_at_k(search(index, queries, exact, k, candidates), truth)
        if table[candidates] >= GOAL or candidates == most:
            break
        candidates = min(2 * candidates, most)
    if table[candidates] < GOAL and getattr(index, "nprobe", 1) < getattr(index, "nlist", 1):
        index.nprobe = min(2 * index.nprobe, index.nlist)
        return measure_recall(index, queries, exact, truth, most_candidates)
    return Recall(candidates, table[candidates], k, len(queries), table)
