"""The score matrix where most scores are zero, such as the weights of a lasso: compressed rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, csr_array, vstack

from engine.attribution.scores.blocks import MAX_BLOCK_ROWS, TESTS_PER_TILE, WORKING_BYTES
from engine.attribution.scores.matrix import Tile, all_rows_if_none, sum_of_columns
from engine.attribution.scores.read_ahead import Seconds
from engine.store.rows import ranges


def from_stored(arrays: Mapping[str, np.ndarray], n_train: int) -> csr_array:
    """A sparse matrix `[rows, n_train]` from the arrays that `to_stored` gave."""
    rows = len(arrays["indptr"]) - 1
    parts = arrays["values"], arrays["indices"], arrays["indptr"]
    return csr_array(parts, shape=(rows, n_train))


def to_stored(matrix: csr_array) -> dict[str, np.ndarray]:
    """A sparse matrix as the store keeps it.

    Returns:
        `indptr` int64 `[rows + 1]`: where each row's entries start and end; `indices` int32
        `[entries]`: their columns; `values` float32 `[entries]`.
    """
    return {
        "indptr": matrix.indptr.astype(np.int64),
        "indices": matrix.indices.astype(np.int32),
        "values": matrix.data.astype(np.float32),
    }


@dataclass(frozen=True)
class SparseScores:
    """τ `[n_test, n_train]` as sparse shards of test rows. The methods are those of `Scores`.

    Attributes:
        shards: Sparse rows `[rows_i, n_train]` float32, in the order of the test examples.
    """

    shards: Sequence[csr_array]

    @property
    def n_test(self) -> int:
        return sum(shard.shape[0] for shard in self.shards)

    @property
    def n_train(self) -> int:
        return int(self.shards[0].shape[1])

    @functools.cached_property
    def _by_row(self) -> csr_array:
        return vstack(self.shards, format="csr")

    @functools.cached_property
    def _by_column(self) -> csc_array:
        return self._by_row.tocsc()

    def rows(self, tests: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._by_row[np.asarray(tests)].toarray()
        return found

    def columns(self, trains: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self._by_column[:, np.asarray(trains)].toarray())

    def sums(self, trains: np.ndarray) -> np.ndarray:
        return sum_of_columns(self, trains)

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        out = np.empty(candidates.shape, np.float32)
        for place, test in enumerate(np.asarray(tests)):
            out[place] = self.rows(np.array([test]))[0, candidates[place]]
        return out

    def tiles(
        self,
        trains: range | None = None,
        memory_bytes: int = WORKING_BYTES,
        seconds: Seconds | None = None,
    ) -> Iterator[Tile]:
        for start, block in self._blocks(trains, memory_bytes):
            columns = range(start, start + block.shape[1])
            for tests in ranges(range(self.n_test), TESTS_PER_TILE):
                yield Tile(tests, columns, block[tests.start : tests.stop])

    def _blocks(
        self, trains: range | None = None, memory_bytes: int = WORKING_BYTES
    ) -> Iterator[tuple[int, np.ndarray]]:
        step = max(1, min(MAX_BLOCK_ROWS, memory_bytes // (8 * self.n_test)))
        for block in ranges(all_rows_if_none(trains, self.n_train), step):
            yield block.start, self.columns(np.arange(block.start, block.stop))

    # Products go through dense blocks: sparse ones round differently, and the search index of an
    # older study would no longer be the same to the bit.
    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        out = np.zeros((self.n_test, x.shape[1]), np.float32)
        first = all_rows_if_none(trains, self.n_train).start
        for start, block in self._blocks(trains):
            out += block @ x[start - first : start - first + block.shape[1]]
        return out

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        parts = [block.T @ y for _, block in self._blocks(trains)]
        return np.concatenate(parts).astype(np.float32, copy=False)
