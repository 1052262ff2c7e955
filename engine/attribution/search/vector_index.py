"""Search in attribution space: a low-rank factorisation of τ, indexed by FAISS, re-ranked exactly.

τ ≈ Σ over r directions of (test vector)·(train vector): one inner-product search with a test
example's vector q and with −q finds the candidates that support and oppose it. Their exact scores
then decide the order, so the index can only miss an example, never misrank one; how many it misses
is measured (`measure_recall`) and shown.

Importing this module imports neither torch nor FAISS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from engine.attribution.scores.top_k import TopK, top_k_among
from engine.store.errors import StoreError
from engine.store.rows import ranges

Kind = Literal["flat", "ivf", "sq", "pq"]
Exact = Callable[[np.ndarray], np.ndarray]
"""Exact scores of candidates: training rows `[t, c]` → `[t, c]`."""

GOAL = 0.99
"""The recall that `measure_recall` looks for."""

_TRAINING_ROWS = 64
"""Vectors for each centroid of k-means."""
_ADD_ROWS = 65_536


def choose_index(n_train: int, rank: int) -> tuple[Kind, str]:
    """Pick a kind of index, and say why in words that stand in the badge.

    Measured on TRAK scores of 50,000 CIFAR-10 pictures (rank 256, top 100 of both signs, 1,600
    candidates): `sq` finds what `flat` does (.990) in a quarter of the memory and two thirds of
    the time; `pq` .994 with 6,400 candidates in a sixteenth. `ivf` is not picked: lengths of train
    vectors differ too much for clusters to tell where large products are (rank 512: .80 with an
    eighth of the clusters searched, .88 with a quarter).
    """
    if n_train <= 100_000:
        return "flat", f"{n_train:,} training examples are few enough to compare with all of them"
    if n_train * rank <= 8 * 2**30:
        return "sq", f"{n_train:,} training examples fit in memory at one byte a dimension"
    return "pq", f"{n_train:,} training examples fit in memory only at one byte every 4 dimensions"


class Vectors(Protocol):
    """Vectors `[n, r]` that are read a few rows at a time, as float32."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, rows: range, out: np.ndarray) -> np.ndarray:
        """Copy consecutive rows to `out`, and return it."""

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy any rows to `out`, and return it."""


def build_index(vectors: Vectors, kind: Kind, seed: int) -> Any:
    """Build an inner-product index over vectors of training examples.

    Args:
        vectors: `[n_train, r]`, at least 2; row i gets id i.
        kind: `flat` compares with all vectors; `sq` and `pq` do too, but keep one byte a dimension
            and one byte every 4 (product quantisation); `ivf` compares with the vectors of the
            nearest k-means clusters only.
        seed: Of k-means and of the rows that it and the quantisers are trained on.

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
            index.do_polysemous_training = False  # for Hamming search, which we do not use; slow
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
    """The bytes of an index, uint8, to be stored as any tensor is."""
    import faiss

    array: np.ndarray = faiss.serialize_index(index)
    return array


def index_from_array(array: np.ndarray) -> Any:
    """Read what `index_to_array` gave.

    Raises:
        StoreError: These are not the bytes of an index.
    """
    import faiss

    try:
        return faiss.deserialize_index(np.ascontiguousarray(array))
    except RuntimeError as error:
        raise StoreError("The search index is no whole FAISS index.") from error


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS sums in the order its threads finish; one thread has one order."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


# --- queries -----------------------------------------------------------------------------------


def search(index: Any, queries: np.ndarray, exact: Exact, k: int, candidates: int) -> TopK:
    """Find the k training examples that support and oppose each query most.

    One search of the index, with the queries and their negatives, gives `candidates` of each
    sign; their exact scores decide.

    Args:
        index: Of `build_index`.
        queries: Test vectors, or `live_queries`, `[t, r]`.
        exact: Gives exact scores; for stored test examples `partial(scores.pairs, tests)`, for
            live ones a look-up in their rows.
        k: How many of each sign.
        candidates: How many of each sign are re-ranked, at least k.
    """
    candidates = min(candidates, index.ntotal)
    both = np.concatenate([queries, -queries]).astype(np.float32, copy=False)
    _, found = index.search(both, candidates)
    found = np.concatenate(np.split(found, 2), axis=1)
    # An inverted file that ran out of lists fills up with -1.
    scores = np.where(found < 0, np.float32(0), exact(np.maximum(found, 0)))
    support = top_k_among(scores[:, :candidates], found[:, :candidates], k)
    oppose = top_k_among(scores[:, candidates:], found[:, candidates:], k)
    return TopK(
        support.support_index, support.support_score, oppose.oppose_index, oppose.oppose_score
    )


def candidates_for(k: int, measured: Mapping[str, Any]) -> int:
    """How many candidates to re-rank for the best k: as many for each as the measure needed.

    Args:
        measured: `candidates`, and `recall_at`, the k that they were measured at.
    """
    return int(-(-k * measured["candidates"] // measured["recall_at"]))


# --- how much the index misses -----------------------------------------------------------------


def recall_at_k(found: TopK, truth: TopK) -> float:
    """Share of the true top-k of both signs that was found. 1 where there is nothing to find."""
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
    """What was measured, and the number of candidates that follows from it.

    Attributes:
        candidates: The fewest that reach `GOAL`; if none does, the most that were tried.
        recall: Recall at k of that many.
        k: Of the measure.
        queries: Test examples it was measured on.
        table: Candidates → recall, of the index as it is left.
    """

    candidates: int
    recall: float
    k: int
    queries: int
    table: dict[int, float]


def measure_recall(
    index: Any, queries: np.ndarray, exact: Exact, truth: TopK, most_candidates: int = 16_384
) -> Recall:
    """Find the fewest candidates, from k up by doubling, whose recall at k reaches `GOAL`.

    An `ivf` index that does not reach it is set to search twice as many clusters, and so on; the
    number that is right for the data is stored with the index.

    Args:
        index: Of `build_index`.
        queries: Test vectors of a sample of test examples `[t, r]`.
        exact: Their exact scores, as for `search`.
        truth: Their exact top-k.
        most_candidates: Try at most so many (fewer where there are fewer vectors).
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
