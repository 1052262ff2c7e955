"""Scores that are mostly zero, such as the weights of a lasso: stored by rows, read as any τ."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.attribution.scores import MAX_BLOCK_ROWS, WORKING_BYTES, ranges, sum_of_columns


@dataclass(frozen=True)
class SparseRows:
    """Compressed rows of a matrix.

    Attributes:
        indptr: int64 `[rows + 1]`: where each row's entries begin and end.
        indices: int32 `[entries]`: their columns, ascending in each row.
        values: float32 `[entries]`.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, dense: np.ndarray) -> SparseRows:
        """Keep what is not zero of `[rows, columns]`."""
        rows, columns = np.nonzero(dense)
        indptr = np.searchsorted(rows, np.arange(len(dense) + 1))
        return cls(indptr, columns.astype(np.int32), dense[rows, columns].astype(np.float32))

    def __len__(self) -> int:
        return len(self.indptr) - 1


@dataclass(frozen=True)
class SparseScores:
    """τ `[n_test, n_train]` in shards of compressed test rows. See `Scores` for what it answers.

    Attributes:
        shards: In the order of the test rows.
        n_train: Columns.
    """

    shards: Sequence[SparseRows]
    n_train: int

    @property
    def n_test(self) -> int:
        return sum(map(len, self.shards))

    @functools.cached_property
    def _rows(self) -> SparseRows:
        """All shards as one."""
        starts = np.cumsum([0, *(len(shard.indices) for shard in self.shards)])
        parts = [
            shard.indptr[:-1] + start for shard, start in zip(self.shards, starts, strict=False)
        ]
        return SparseRows(
            np.concatenate([*parts, starts[-1:]]),
            np.concatenate([shard.indices for shard in self.shards]),
            np.concatenate([shard.values for shard in self.shards]),
        )

    @functools.cached_property
    def _columns(self) -> SparseRows:
        """The transpose."""
        order = np.argsort(self._rows.indices, kind="stable")
        tests = np.repeat(np.arange(self.n_test, dtype=np.int32), np.diff(self._rows.indptr))
        columns = self._rows.indices[order]
        indptr = np.searchsorted(columns, np.arange(self.n_train + 1))
        return SparseRows(indptr, tests[order], self._rows.values[order])

    def rows(self, tests: np.ndarray) -> np.ndarray:
        return _dense(self._rows, np.asarray(tests), self.n_train)

    def columns(self, trains: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(_dense(self._columns, np.asarray(trains), self.n_test).T)

    def sums(self, trains: np.ndarray) -> np.ndarray:
        return sum_of_columns(self, trains)

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        out = np.empty(candidates.shape, np.float32)
        for place, test in enumerate(np.asarray(tests)):
            out[place] = self.rows(np.array([test]))[0, candidates[place]]
        return out

    def blocks(
        self, trains: range | None = None, memory_bytes: int = WORKING_BYTES
    ) -> Iterator[tuple[int, np.ndarray]]:
        step = max(1, min(MAX_BLOCK_ROWS, memory_bytes // (8 * self.n_test)))
        for block in ranges(range(self.n_train) if trains is None else trains, step):
            yield block.start, self.columns(np.arange(block.start, block.stop))

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        out = np.zeros((self.n_test, x.shape[1]), np.float32)
        first = 0 if trains is None else trains.start
        for start, block in self.blocks(trains):
            out += block @ x[start - first : start - first + block.shape[1]]
        return out

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        parts = [block.T @ y for _, block in self.blocks(trains)]
        return np.concatenate(parts).astype(np.float32, copy=False)


def _dense(sparse: SparseRows, rows: np.ndarray, width: int) -> np.ndarray:
    """Some rows `[len(rows), width]`, float32."""
    out: np.ndarray = np.zeros((len(rows), width), np.float32)
    counts = sparse.indptr[rows + 1] - sparse.indptr[rows]
    places = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    entries = np.repeat(sparse.indptr[rows], counts) + within
    out[places, sparse.indices[entries]] = sparse.values[entries]
    return out
