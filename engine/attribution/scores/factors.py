"""The score matrix as a product of factors: TRAK by its primal solver."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.attribution.scores.blocks import MAX_BLOCK_ROWS, WORKING_BYTES, Workspace, block_rows
from engine.attribution.scores.matrix import all_rows_if_none, shrink, sum_of_columns
from engine.attribution.scores.row_shards import RowShards
from engine.store.errors import StoreError
from engine.store.rows import ranges

_GROUP = 64
"""Test examples whose candidates are scored together in `FactorScores.pairs`. A larger group shares
more rows of Φ, but each test example is multiplied with the candidates of all. At 64, reading and
multiplying cost about the same where no candidate is shared."""


@dataclass(frozen=True)
class FactorScores:
    """τ = Q̄ ⊙ mean_m(G_m Φ_mᵀ), one pair of factors for each checkpoint m (TRAK, arXiv 2303.14186,
    section 3). G_m = (Φ_mᵀΦ_m + λ_m I)⁻¹ φ_m(x), one row for each test example x.

    Attributes:
        features: For each checkpoint the shards of Φ_m, `[rows_i, p_m]`; widths p_m may differ.
        factors: For each checkpoint G_m `[n_test, p_m]`.
        out_to_loss: Q̄ `[n_train]` float32.
        threshold: Soft threshold `[n_test]` float32, in units of the scores; None for none.
    """

    features: Sequence[Sequence[np.ndarray]]
    factors: Sequence[np.ndarray]
    out_to_loss: np.ndarray
    threshold: np.ndarray | None = None

    @functools.cached_property
    def _checkpoints(self) -> list[tuple[RowShards, RowShards]]:
        """Φ_m and G_m of each checkpoint."""
        both = [
            (RowShards.of(features), RowShards.of([factors]))
            for features, factors in zip(self.features, self.factors, strict=True)
        ]
        for number, (phi, g) in enumerate(both):
            if phi.shape != (self.n_train, g.shape[1]) or g.shape[0] != self.n_test:
                raise StoreError(
                    f"Checkpoint {number}: training features {phi.shape}, test factors {g.shape} "
                    f"and {self.n_train} out-to-loss gradients do not belong together."
                )
        return both

    @property
    def n_test(self) -> int:
        return len(self.factors[0])

    @property
    def n_train(self) -> int:
        return len(self.out_to_loss)

    def rows(self, tests: np.ndarray) -> np.ndarray:
        return self._tiled(np.asarray(tests), range(self.n_train))

    def columns(self, trains: np.ndarray) -> np.ndarray:
        return self._tiled(range(self.n_test), np.asarray(trains))

    def sums(self, trains: np.ndarray) -> np.ndarray:
        if self.threshold is not None:
            return sum_of_columns(self, trains)
        trains = np.asarray(trains)
        out = np.zeros(self.n_test)
        workspace = Workspace()
        for phi, g in self._checkpoints:
            # Summing the features first takes one product with the factors, not one per example.
            total = np.zeros(phi.shape[1])
            for part in ranges(range(len(trains)), MAX_BLOCK_ROWS):
                mine = trains[part.start : part.stop]
                features = phi.take(mine, workspace("features", (len(mine), phi.shape[1])))
                total += self.out_to_loss[mine].astype(np.float64) @ features
            total /= len(self.factors)
            for tests, read in _row_blocks(g, range(self.n_test), workspace):
                out[tests.start : tests.stop] += read @ total
        return out

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        out = np.empty(candidates.shape, np.float32)
        for group in ranges(range(len(tests)), _GROUP):
            mine = slice(group.start, group.stop)
            distinct, place = np.unique(candidates[mine], return_inverse=True)
            table = self._tiled(np.asarray(tests)[mine], distinct)
            out[mine] = np.take_along_axis(table, place.reshape(len(group), -1), axis=1)
        return out

    def blocks(
        self, trains: range | None = None, memory_bytes: int = WORKING_BYTES
    ) -> Iterator[tuple[int, np.ndarray]]:
        workspace = Workspace()
        step = self._step(memory_bytes, self.n_test)
        for block in ranges(all_rows_if_none(trains, self.n_train), step):
            out = workspace("block", (len(block), self.n_test))
            for tests in ranges(range(self.n_test), step):
                out[:, tests.start : tests.stop] = self._tile(tests, block, workspace)
            yield block.start, out.T

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        trains = all_rows_if_none(trains, self.n_train)
        weighted = x * (
            self.out_to_loss[trains.start : trains.stop, None] / np.float32(len(self.factors))
        )
        workspace = Workspace()
        out = np.zeros((self.n_test, x.shape[1]), np.float32)
        for phi, g in self._checkpoints:
            total = np.zeros((phi.shape[1], x.shape[1]), np.float32)
            for block, read in _row_blocks(phi, trains, workspace):
                total += read.T @ weighted[block.start - trains.start : block.stop - trains.start]
            for tests, read in _row_blocks(g, range(self.n_test), workspace):
                out[tests.start : tests.stop] += read @ total
        return out

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        trains = all_rows_if_none(trains, self.n_train)
        workspace = Workspace()
        out = np.zeros((len(trains), y.shape[1]), np.float32)
        for phi, g in self._checkpoints:
            total = np.zeros((phi.shape[1], y.shape[1]), np.float32)
            for tests, read in _row_blocks(g, range(self.n_test), workspace):
                total += read.T @ y[tests.start : tests.stop]
            for block, read in _row_blocks(phi, trains, workspace):
                out[block.start - trains.start : block.stop - trains.start] += read @ total
        out *= self.out_to_loss[trains.start : trains.stop, None] / np.float32(len(self.factors))
        return out

    def _step(self, memory_bytes: int, n_test: int) -> int:
        """Rows of a tile. Each needs a row of features, a row of factors, and at most 4 · `n_test`
        scores (block, tile, product of one checkpoint, what the threshold removes)."""
        width = max(phi.shape[1] for phi, _ in self._checkpoints)
        return block_rows(memory_bytes, 8 * width + 16 * n_test)

    def _tiled(self, tests: np.ndarray | range, trains: np.ndarray | range) -> np.ndarray:
        """Scores of `tests` with `trains`: `[len(tests), len(trains)]`."""
        workspace = Workspace()
        out = np.empty((len(tests), len(trains)), np.float32)
        step = self._step(WORKING_BYTES, len(tests))
        for part in ranges(range(len(trains)), step):
            for mine in ranges(range(len(tests)), step):
                tile = self._tile(
                    tests[mine.start : mine.stop], trains[part.start : part.stop], workspace
                )
                out[mine.start : mine.stop, part.start : part.stop] = tile.T
        return out

    def _tile(
        self, tests: np.ndarray | range, trains: np.ndarray | range, workspace: Workspace
    ) -> np.ndarray:
        """Scores that fit in memory at once: `[len(trains), len(tests)]`, overwritten by the next.

        Training rows come first, because BLAS reads both factors fastest that way.
        """
        shape = len(trains), len(tests)
        tile, product = workspace("tile", shape), workspace("product", shape)
        tile.fill(0)
        for phi, g in self._checkpoints:
            features = phi.get(trains, workspace("features", (len(trains), phi.shape[1])))
            factors = g.get(tests, workspace("factors", (len(tests), g.shape[1])))
            tile += np.matmul(features, factors.T, out=product)
        combine(tile.T, len(self.factors), self.out_to_loss[_index(trains)])
        if self.threshold is not None:
            shrink(tile, self.threshold[_index(tests)], workspace)
        return tile


def combine(total: np.ndarray, n_checkpoints: int, mean_q: np.ndarray) -> np.ndarray:
    """Turn Σ_m G_m Φ_mᵀ `[..., n_train]` into scores, in place: τ = Q̄ ⊙ (total / n_checkpoints).

    Args:
        total: The sum over checkpoints, float32.
        n_checkpoints: Number of checkpoints summed.
        mean_q: Q̄ `[n_train]`, the mean out-to-loss gradient over the same checkpoints.
    """
    total *= mean_q / np.float32(n_checkpoints)
    return total


def _index(rows: np.ndarray | range) -> np.ndarray | slice:
    return slice(rows.start, rows.stop) if isinstance(rows, range) else rows


def _row_blocks(
    shards: RowShards, rows: range, workspace: Workspace
) -> Iterator[tuple[range, np.ndarray]]:
    for block in ranges(rows, block_rows(WORKING_BYTES, 4 * shards.shape[1])):
        yield block, shards.read(block, workspace("rows", (len(block), shards.shape[1])))
