"""Which training examples a model sees as similar: nearest neighbors of its embeddings.

The similarity of two examples is the cosine between their embeddings (the input of the model's
head), averaged over checkpoints. Checkpoints start from different random weights, so their
embeddings have no axes in common: embeddings must not be averaged, but cosines can be. Embeddings
of length 1, concatenated over checkpoints, have exactly that average as their inner product, so one
FAISS index serves all checkpoints. Using several is worth it. On DESIGN's CNN, 18 % of the ten
nearest neighbors by one checkpoint are also those by another; 42 % of those by five checkpoints are
those by five others. Neighbors have the label of the query in 90.5 % (ten checkpoints) instead of
87.1 % (one).

Importing this module imports neither torch nor FAISS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.attribution.search.vector_index import GOAL, Kind
from engine.store.rows import ranges

MAX_DIMENSIONS = 2048
"""As many checkpoints are used as have at most this many dimensions together."""
MAX_NUMBERS = 2**30
"""Likewise for the numbers over all training examples, which the index keeps in memory."""
FLAT_LIMIT = 100_000
"""With more training examples, queries are compared with those in near clusters only."""

_QUERIES = 256
_ROWS = 8192


def checkpoints_to_use(width: int, checkpoints: int, n_train: int) -> int:
    """How many checkpoints to use, counted from the first; at least one.

    Args:
        width: Dimensions of the embeddings of one checkpoint.
        checkpoints: How many there are.
        n_train: Number of training examples.
    """
    fitting = min(MAX_DIMENSIONS, MAX_NUMBERS // n_train) // width
    return max(1, min(checkpoints, fitting))


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of n examples at several checkpoints, concatenated to rows of length 1.

    Attributes:
        parts: For each checkpoint `[n, d]` float32, usually memory-mapped.
    """

    parts: Sequence[np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.parts[0]), sum(part.shape[1] for part in self.parts)

    def read(self, rows: range, out: np.ndarray) -> np.ndarray:
        """Copy consecutive rows to `out` `[len(rows), width]`."""
        return self._fill([part[rows.start : rows.stop] for part in self.parts], out)

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy rows in any order to `out` `[len(rows), width]`."""
        return self._fill([part[rows] for part in self.parts], out)

    def _fill(self, found: list[np.ndarray], out: np.ndarray) -> np.ndarray:
        column = 0
        for part in found:
            mine = out[:, column : column + part.shape[1]]
            lengths = np.linalg.norm(part, axis=1, keepdims=True) * np.sqrt(len(found))
            # An embedding of zeros has no direction; it stays zero.
            np.divide(part, np.maximum(lengths, np.finfo(np.float32).tiny), out=mine)
            column += part.shape[1]
        return out

    def rows(self, rows: np.ndarray | range) -> np.ndarray:
        """These rows as a new array."""
        out = np.empty((len(rows), self.shape[1]), np.float32)
        return self.read(rows, out) if isinstance(rows, range) else self.take(rows, out)


@dataclass(frozen=True)
class Neighbours:
    """The nearest examples of each query, nearest first; ties are ordered by row.

    Attributes:
        index: Rows `[t, k]` int32; −1 where there are fewer than k.
        similarity: Mean cosines `[t, k]` float32; 0 where the row is −1.
    """

    index: np.ndarray
    similarity: np.ndarray


def choose_kind(n_train: int) -> tuple[Kind, str]:
    """Choose the kind of index for embeddings; return it with the reason, for people."""
    if n_train <= FLAT_LIMIT:
        return "flat", f"{n_train:,} training examples are few enough to compare with all of them"
    return "ivf", f"of {n_train:,} training examples only near clusters are compared"


def nearest(
    index: Any,
    embeddings: Embeddings,
    queries: np.ndarray,
    k: int,
    candidates: int,
    exclude: np.ndarray | None = None,
) -> Neighbours:
    """Find the k examples most similar to each query.

    Args:
        index: From `engine.attribution.search.vector_index.build_index` over `embeddings`.
        embeddings: Of the examples to search; they give the exact order and similarity.
        queries: Rows of length 1 as `Embeddings` gives them, `[t, width]`.
        k: How many.
        candidates: How many the index returns for each query, at least k.
        exclude: For each query a row to leave out, such as the query itself, `[t]`.
    """
    wanted = min(candidates + (exclude is not None), index.ntotal)
    found = np.full((len(queries), k), -1, np.int32)
    similarity = np.zeros((len(queries), k), np.float32)
    for part in ranges(range(len(queries)), _QUERIES):
        _, rows = index.search(queries[part.start : part.stop], wanted)
        for query, mine in zip(part, rows, strict=True):
            # An inverted file that has no more vectors fills up with -1.
            mine = mine[(mine >= 0) & (mine != (-1 if exclude is None else exclude[query]))]
            alike = embeddings.rows(mine) @ queries[query]
            order = np.lexsort((mine, -alike))[:k]
            found[query, : len(order)] = mine[order]
            similarity[query, : len(order)] = alike[order]
    return Neighbours(found, similarity)


def nearest_of_all(embeddings: Embeddings, queries: np.ndarray, k: int) -> Neighbours:
    """The exact result that `nearest` approximates: compares with every example, in blocks."""
    best = Neighbours(np.empty((len(queries), 0), np.int32), np.empty((len(queries), 0), "f4"))
    for block in ranges(range(embeddings.shape[0]), _ROWS):
        rows = np.tile(np.arange(block.start, block.stop, dtype=np.int32), (len(queries), 1))
        alike = queries @ embeddings.rows(block).T
        index = np.concatenate([best.index, rows], axis=1)
        similarity = np.concatenate([best.similarity, alike], axis=1)
        order = np.lexsort((index, -similarity), axis=1)[:, :k]
        best = Neighbours(*(np.take_along_axis(x, order, axis=1) for x in (index, similarity)))
    return best


@dataclass(frozen=True)
class Recall:
    """How many neighbors an index finds.

    Attributes:
        candidates: The smallest number that reaches `GOAL` at k; if none does, the largest tried.
        recall: Share of the true k nearest that is found with that many candidates.
    """

    candidates: int
    recall: float


def measure_recall(index: Any, embeddings: Embeddings, queries: np.ndarray, k: int) -> Recall:
    """Find the smallest number of candidates, from k up by doubling, that reaches `GOAL`.

    An inverted file that does not reach it is set to search twice as many clusters, and so on.

    Args:
        index: From `build_index` over `embeddings`.
        embeddings: Of the examples to search.
        queries: A sample, as for `nearest`.
        k: How many neighbors.
    """
    truth = nearest_of_all(embeddings, queries, k).index
    while True:
        candidates = min(k, index.ntotal)
        while True:
            found = nearest(index, embeddings, queries, k, candidates).index
            recall = float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())
            if recall >= GOAL or candidates >= min(8 * k, index.ntotal):
                break
            candidates = min(2 * candidates, index.ntotal)
        if recall >= GOAL or getattr(index, "nprobe", 1) >= getattr(index, "nlist", 1):
            return Recall(candidates, recall)
        index.nprobe = min(2 * index.nprobe, index.nlist)
