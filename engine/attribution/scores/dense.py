"""The score matrix held as it is, in shards of test rows."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.attribution.scores.blocks import (
    TESTS_PER_TILE,
    WORKING_BYTES,
    Workspace,
    block_rows,
)
from engine.attribution.scores.matrix import Tile, all_rows_if_none, shrink, sum_of_columns
from engine.attribution.scores.read_ahead import Seconds
from engine.attribution.scores.row_shards import RowShards
from engine.store.rows import ranges


@dataclass(frozen=True)
class DenseScores:
    """τ in shards of test rows `[rows_i, n_train]`.

    Attributes:
        shards: τ before the soft threshold, already multiplied by Q̄ and averaged over checkpoints.
        threshold: Soft threshold `[n_test]` float32, in units of the scores; None for none.
    """

    shards: Sequence[np.ndarray]
    threshold: np.ndarray | None = None

    @functools.cached_property
    def _tau(self) -> RowShards:
        return RowShards.of(self.shards)

    @property
    def n_test(self) -> int:
        return self._tau.shape[0]

    @property
    def n_train(self) -> int:
        return self._tau.shape[1]

    def rows(self, tests: np.ndarray) -> np.ndarray:
        tests = np.asarray(tests)
        out = self._tau.take(tests, np.empty((len(tests), self.n_train), np.float32))
        shrink(out, _column(self.threshold, tests), Workspace())
        return out

    def columns(self, trains: np.ndarray) -> np.ndarray:
        out = np.concatenate([part[:, trains] for part in self._tau.parts])
        out = out.astype(np.float32, copy=False)
        shrink(out, _column(self.threshold), Workspace())
        return out

    def sums(self, trains: np.ndarray) -> np.ndarray:
        return sum_of_columns(self, trains)

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        out = np.empty(candidates.shape, np.float32)
        for place, test in enumerate(np.asarray(tests)):
            number = int(np.searchsorted(self._tau.starts, test, side="right")) - 1
            row = self._tau.parts[number][test - self._tau.starts[number]]
            out[place] = row[candidates[place]]
        shrink(out, _column(self.threshold, tests), Workspace())
        return out

    def tiles(
        self,
        trains: range | None = None,
        memory_bytes: int = WORKING_BYTES,
        seconds: Seconds | None = None,
    ) -> Iterator[Tile]:
        workspace, seconds = Workspace(), seconds or Seconds()
        height = min(self.n_test, block_rows(memory_bytes, 8), TESTS_PER_TILE)
        step = block_rows(memory_bytes, 8 * height)
        for block in ranges(all_rows_if_none(trains, self.n_train), step):
            for tests in ranges(range(self.n_test), height):
                start = time.perf_counter()
                out = workspace("tile", (len(tests), len(block)))
                self._tau.read(tests, out, slice(block.start, block.stop))
                seconds.waiting += time.perf_counter() - start
                mine = slice(tests.start, tests.stop)
                shrink(out, _column(self.threshold, mine), workspace)
                yield Tile(tests, block, out)

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        return np.concatenate([rows @ x for _, rows in self._row_blocks(trains)])

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        out = np.zeros((len(all_rows_if_none(trains, self.n_train)), y.shape[1]), np.float32)
        for tests, rows in self._row_blocks(trains):
            out += rows.T @ y[tests.start : tests.stop]
        return out

    def _row_blocks(self, trains: range | None) -> Iterator[tuple[range, np.ndarray]]:
        trains = all_rows_if_none(trains, self.n_train)
        workspace = Workspace()
        for tests in ranges(range(self.n_test), block_rows(WORKING_BYTES, 4 * len(trains))):
            out = workspace("rows", (len(tests), len(trains)))
            yield tests, self._tau.read(tests, out, slice(trains.start, trains.stop))


def _column(threshold: np.ndarray | None, tests: Any = slice(None)) -> np.ndarray | None:
    return None if threshold is None else threshold[tests, None]
