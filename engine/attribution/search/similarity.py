"""Which training examples a model sees as alike: nearest neighbours of its embeddings.

Likeness of two examples is the mean over checkpoints of the cosine between their embeddings (the
features in front of the model's head). Checkpoints begin from different random weights, so their
embeddings have no axes in common and must not be averaged; their cosines can be. Brought to length
1 and laid side by side, the embeddings of all checkpoints have exactly that mean as their inner
product, so one FAISS index answers it. Several checkpoints are worth it: on DESIGN's CNN the ten
nearest of one checkpoint are to 18 % those of another, of five checkpoints to 42 % those of five
others, and the label is that of the query in 90.5 % (ten checkpoints) instead of 87.1 % (one).

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
"""Checkpoints are taken as long as their embeddings together have no more dimensions."""
MAX_NUMBERS = 2**30
"""Nor, over all training examples, more numbers than these: the index keeps them in memory."""
FLAT_LIMIT = 100_000
"""Beyond so many training examples, queries are compared with those of near clusters only."""

_QUERIES = 256
_ROWS = 8192


def checkpoints_to_use(width: int, checkpoints: int, n_train: int) -> int:
    """How many of the checkpoints, from the first, are laid side by side; at least one."""
    fitting = min(MAX_DIMENSIONS, MAX_NUMBERS // n_train) // width
    return max(1, min(checkpoints, fitting))


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of n examples at several checkpoints, read as rows of length 1.

    Attributes:
        parts: For each checkpoint `[n, d]` float32, memory-mapped as a rule.
    """

    parts: Sequence[np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.parts[0]), sum(part.shape[1] for part in self.parts)

    def read(self, rows: range, out: np.ndarray) -> np.ndarray:
        """Copy consecutive rows to `out` `[len(rows), width]`."""
        return self._fill([part[rows.start : rows.stop] for part in self.parts], out)

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy any rows to `out` `[len(rows), width]`."""
        return self._fill([part[rows] for part in self.parts], out)

    def _fill(self, found: list[np.ndarray], out: np.ndarray) -> np.ndarray:
        column = 0
        for part in found:
            mine = out[:, column : column + part.shape[1]]
            lengths = np.linalg.norm(part, axis=1, keepdims=True) * np.sqrt(len(found))
            # An embedding of zeros is like nothing; it stays zero.
            np.divide(part, np.maximum(lengths, np.finfo(np.float32).tiny), out=mine)
            column += part.shape[1]
        return out

    def rows(self, rows: np.ndarray | range) -> np.ndarray:
        """These rows as a new array."""
        out = np.empty((len(rows), self.shape[1]), np.float32)
        return self.read(rows, out) if isinstance(rows, range) else self.take(rows, out)


@dataclass(frozen=True)
class Neighbours:
    """The nearest examples of each query, nearest first; of equals the smaller row.

    Attributes:
        index: Rows `[t, k]` int32; −1 where there is no further one.
        similarity: Mean cosines `[t, k]` float32; 0 under −1.
    """

    index: np.ndarray
    similarity: np.ndarray


def choose_kind(n_train: int) -> tuple[Kind, str]:
    """Pick a kind of index for embeddings, and say why."""
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
    """Find the k examples most like each query.

    Args:
        index: Of `engine.attribution.search.vector_index.build_index` over `embeddings`.
        embeddings: Of the examples that are searched; decide order and similarity exactly.
        queries: Rows of length 1 as `Embeddings` gives them `[t, width]`.
        k: How many.
        candidates: How many the index hands over for each query, at least k.
        exclude: For each query a row that does not count, such as itself `[t]`.
    """
    wanted = min(candidates + (exclude is not None), index.ntotal)
    found = np.full((len(queries), k), -1, np.int32)
    similarity = np.zeros((len(queries), k), np.float32)
    for part in ranges(range(len(queries)), _QUERIES):
        _, rows = index.search(queries[part.start : part.stop], wanted)
        for query, mine in zip(part, rows, strict=True):
            # An inverted file that ran out of clusters fills up with -1.
            mine = mine[(mine >= 0) & (mine != (-1 if exclude is None else exclude[query]))]
            alike = embeddings.rows(mine) @ queries[query]
            order = np.lexsort((mine, -alike))[:k]
            found[query, : len(order)] = mine[order]
            similarity[query, : len(order)] = alike[order]
    return Neighbours(found, similarity)


def nearest_of_all(embeddings: Embeddings, queries: np.ndarray, k: int) -> Neighbours:
    """What `nearest` approximates, by comparison with every example; memory stays bounded."""
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
    """How much an index misses.

    Attributes:
        candidates: The fewest that reach `GOAL` at k; if none does, the most that were tried.
        recall: Share of the true nearest k that is found with so many.
    """

    candidates: int
    recall: float


def measure_recall(index: Any, embeddings: Embeddings, queries: np.ndarray, k: int) -> Recall:
    """Find the fewest candidates, from k up by doubling, that reach `GOAL` on these queries.

    An inverted file that does not reach it is set to search twice as many clusters, and so on.
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
