"""The score matrix τ `[n_test, n_train]`: read exactly, a piece at a time, and never held whole.

Two forms, one for each solver of DESIGN section 5:

* `DenseScores` (the dual): τ itself, in shards of test rows;
* `FactorScores` (the primal): for each checkpoint m the training features Φ_m and the test factors
  G_m = (Φ_mᵀΦ_m + λ_m I)⁻¹ φ_m(x), so that τ = Q̄ ⊙ mean_m(G_m Φ_mᵀ) (TRAK, arXiv 2303.14186,
  section 3).

Both hold arrays, memory-mapped as a rule, and know no file names. What they allocate is bounded by
the memory they are given, or by what they return; never by `n_train`.

All scores returned are float32. They are soft-thresholded where `threshold` is set:
sign(τ)·max(|τ| − S_x, 0) with one S_x for each test example. `matmat` and `rmatmat` are the
products with the linear operator τ before that.

Blocks have at most `MAX_BLOCK_ROWS` training rows however much memory there is, so that rounding,
and so the bytes of what is stored, do not differ from one machine's memory to another's.
"""

from __future__ import annotations

import functools
import itertools
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engine.store.errors import StoreError

MAX_BLOCK_ROWS = 4096
WORKING_BYTES = 2**28
"""Memory for temporaries where the caller sets no bound: 256 MiB."""

_GROUP = 64
"""Test examples whose candidates are looked up together in `FactorScores.pairs`: more of them share
rows of Φ, but each is multiplied with the candidates of all. At 64 reading and multiplying cost
about the same where nothing is shared."""
_LOW_BITS = np.int64(2**32 - 1)


class Scores(Protocol):
    """What search, pages and applications need of τ."""

    @property
    def n_test(self) -> int: ...

    @property
    def n_train(self) -> int: ...

    def rows(self, tests: np.ndarray) -> np.ndarray:
        """Scores of some test examples with every training example: `[len(tests), n_train]`."""

    def columns(self, trains: np.ndarray) -> np.ndarray:
        """Scores of every test example with some training examples: `[n_test, len(trains)]`."""

    def sums(self, trains: np.ndarray) -> np.ndarray:
        """Sum over some training examples of their scores with every test example, float64
        `[n_test]`; memory stays bounded."""

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Scores of each of `tests` `[t]` with its own `candidates` `[t, c]`: `[t, c]`."""

    def blocks(
        self, trains: range | None = None, memory_bytes: int = WORKING_BYTES
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first training row, scores `[n_test, block]`) over `trains`, in order.

        The array is overwritten by the next step; copy what must stay.
        """

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        """τ[:, trains] @ x, with x `[len(trains), r]`: `[n_test, r]`. Without soft threshold."""

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        """τ[:, trains]ᵀ @ y, with y `[n_test, r]`: `[len(trains), r]`. Without soft threshold."""


# --- arrays in pieces --------------------------------------------------------------------------


@dataclass(frozen=True)
class RowShards:
    """Arrays `[rows_i, width]` (float16 or float32) that together are one array `[rows, width]`."""

    parts: tuple[np.ndarray, ...]
    starts: tuple[int, ...]
    """First row of each part, and at the end the number of rows."""

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> RowShards:
        """Put arrays under each other. They must have two dimensions and the same width."""
        parts = tuple(arrays)
        if len({part.shape[1:] for part in parts}) != 1 or parts[0].ndim != 2:
            raise StoreError(
                f"Shards of shapes {[part.shape for part in parts]} do not fit together."
            )
        return cls(parts, tuple(itertools.accumulate((len(part) for part in parts), initial=0)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.starts[-1], self.parts[0].shape[1]

    def read(self, rows: range, out: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Copy consecutive rows, or some columns of them, to `out` as float32.

        Pages of a mapped file are given back at once: a pass over all of it would else end with
        all of it counted as this process's memory.
        """
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            first, last = max(rows.start, start), min(rows.stop, start + len(part))
            if first < last:
                mine = slice(first - rows.start, last - rows.start)
                out[mine] = part[first - start : last - start, columns]
                _give_pages_back(part)
        return out

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy any rows to `out` as float32."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(shard):
            mine = shard == number
            out[mine] = self.parts[number][rows[mine] - self.starts[number]]
        return out

    def get(self, rows: np.ndarray | range, out: np.ndarray) -> np.ndarray:
        """`read` or `take`."""
        return self.read(rows, out) if isinstance(rows, range) else self.take(rows, out)


def _give_pages_back(array: np.ndarray) -> None:
    if isinstance(array, np.memmap) and array.mode == "r" and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


class _Workspace:
    """Named scratch arrays that are used again: fresh large ones cost more than a product
    (page faults: measured 42 GFLOP/s instead of 150)."""

    def __init__(self) -> None:
        self._flat: dict[str, np.ndarray] = {}

    def __call__(self, name: str, shape: tuple[int, int], dtype: Any = np.float32) -> np.ndarray:
        size = shape[0] * shape[1]
        if name not in self._flat or self._flat[name].size < size:
            self._flat[name] = np.empty(size, dtype)
        return self._flat[name][:size].reshape(shape)


def ranges(rows: range, step: int) -> Iterator[range]:
    """Cut a range into ranges of at most `step`."""
    return (
        range(first, min(first + step, rows.stop)) for first in range(rows.start, rows.stop, step)
    )


def _range(trains: range | None, n_train: int) -> range:
    return range(n_train) if trains is None else trains


def _block_rows(memory_bytes: int, bytes_per_row: int) -> int:
    """The largest power of two that fits, at least 1 and at most MAX_BLOCK_ROWS."""
    fitting = max(1, memory_bytes // max(1, bytes_per_row))
    return min(MAX_BLOCK_ROWS, 1 << (fitting.bit_length() - 1))


def _shrink(block: np.ndarray, threshold: np.ndarray | None, workspace: _Workspace) -> None:
    """Soft threshold in place; `threshold` broadcasts with `block`."""
    if threshold is not None:
        block -= np.clip(block, -threshold, threshold, out=workspace("shrink", block.shape))


def combine(total: np.ndarray, n_checkpoints: int, mean_q: np.ndarray) -> np.ndarray:
    """Turn Σ_m G_m Φ_mᵀ `[..., n_train]` into scores, in place: τ = Q̄ ⊙ (total / n_checkpoints).

    Args:
        total: The sum over checkpoints.
        n_checkpoints: How many were summed.
        mean_q: Q̄ `[n_train]`, the mean out-to-loss gradient over the same checkpoints.
    """
    total *= mean_q / np.float32(n_checkpoints)
    return total


def sum_of_columns(scores: Scores, trains: np.ndarray) -> np.ndarray:
    """`Scores.sums` by looking every score up."""
    total = np.zeros(scores.n_test)
    for part in ranges(range(len(trains)), _block_rows(WORKING_BYTES, 8 * scores.n_test)):
        block = scores.columns(np.asarray(trains)[part.start : part.stop])
        total += block.sum(axis=1, dtype=np.float64)
    return total


# --- the dual ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DenseScores:
    """τ in shards of test rows `[rows_i, n_train]`.

    Attributes:
        shards: τ before the soft threshold, Q̄ and the mean over checkpoints included.
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
        _shrink(out, _column(self.threshold, tests), _Workspace())
        return out

    def columns(self, trains: np.ndarray) -> np.ndarray:
        out = np.concatenate([part[:, trains] for part in self._tau.parts])
        out = out.astype(np.float32, copy=False)
        _shrink(out, _column(self.threshold), _Workspace())
        return out

    def sums(self, trains: np.ndarray) -> np.ndarray:
        return sum_of_columns(self, trains)

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        out = np.empty(candidates.shape, np.float32)
        for place, test in enumerate(np.asarray(tests)):
            number = int(np.searchsorted(self._tau.starts, test, side="right")) - 1
            row = self._tau.parts[number][test - self._tau.starts[number]]
            out[place] = row[candidates[place]]
        _shrink(out, _column(self.threshold, tests), _Workspace())
        return out

    def blocks(
        self, trains: range | None = None, memory_bytes: int = WORKING_BYTES
    ) -> Iterator[tuple[int, np.ndarray]]:
        workspace = _Workspace()
        step = _block_rows(memory_bytes, 8 * self.n_test)
        for block in ranges(_range(trains, self.n_train), step):
            out = workspace("block", (self.n_test, len(block)))
            self._tau.read(range(self.n_test), out, slice(block.start, block.stop))
            _shrink(out, _column(self.threshold), workspace)
            yield block.start, out

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        return np.concatenate([rows @ x for _, rows in self._row_blocks(trains)])

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        out = np.zeros((len(_range(trains, self.n_train)), y.shape[1]), np.float32)
        for tests, rows in self._row_blocks(trains):
            out += rows.T @ y[tests.start : tests.stop]
        return out

    def _row_blocks(self, trains: range | None) -> Iterator[tuple[range, np.ndarray]]:
        trains = _range(trains, self.n_train)
        workspace = _Workspace()
        for tests in ranges(range(self.n_test), _block_rows(WORKING_BYTES, 4 * len(trains))):
            out = workspace("rows", (len(tests), len(trains)))
            yield tests, self._tau.read(tests, out, slice(trains.start, trains.stop))


def _column(threshold: np.ndarray | None, tests: Any = slice(None)) -> np.ndarray | None:
    return None if threshold is None else threshold[tests, None]


# --- the primal --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FactorScores:
    """τ as products of factors, one pair for each checkpoint; widths may differ.

    Attributes:
        features: For each checkpoint the shards of Φ_m, `[rows_i, p_m]`.
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
        workspace = _Workspace()
        for phi, g in self._checkpoints:
            # What is summed first needs one product with the factors, not one for each example.
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
        workspace = _Workspace()
        step = self._step(memory_bytes, self.n_test)
        for block in ranges(_range(trains, self.n_train), step):
            out = workspace("block", (len(block), self.n_test))
            for tests in ranges(range(self.n_test), step):
                out[:, tests.start : tests.stop] = self._tile(tests, block, workspace)
            yield block.start, out.T

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        trains = _range(trains, self.n_train)
        weighted = x * (
            self.out_to_loss[trains.start : trains.stop, None] / np.float32(len(self.factors))
        )
        workspace = _Workspace()
        out = np.zeros((self.n_test, x.shape[1]), np.float32)
        for phi, g in self._checkpoints:
            total = np.zeros((phi.shape[1], x.shape[1]), np.float32)
            for block, read in _row_blocks(phi, trains, workspace):
                total += read.T @ weighted[block.start - trains.start : block.stop - trains.start]
            for tests, read in _row_blocks(g, range(self.n_test), workspace):
                out[tests.start : tests.stop] += read @ total
        return out

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        trains = _range(trains, self.n_train)
        workspace = _Workspace()
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
        """Rows of a tile: each has a row of features, one of factors, and at most 4 · `n_test`
        scores (block, tile, product of one checkpoint, what the threshold takes off)."""
        width = max(phi.shape[1] for phi, _ in self._checkpoints)
        return _block_rows(memory_bytes, 8 * width + 16 * n_test)

    def _tiled(self, tests: np.ndarray | range, trains: np.ndarray | range) -> np.ndarray:
        """Scores of `tests` with `trains`: `[len(tests), len(trains)]`."""
        workspace = _Workspace()
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
        self, tests: np.ndarray | range, trains: np.ndarray | range, workspace: _Workspace
    ) -> np.ndarray:
        """Scores that fit in memory at once: `[len(trains), len(tests)]`, overwritten by the next.

        Training rows first: then both factors of the product lie as BLAS reads them best.
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
            _shrink(tile, self.threshold[_index(tests)], workspace)
        return tile


def _index(rows: np.ndarray | range) -> np.ndarray | slice:
    return slice(rows.start, rows.stop) if isinstance(rows, range) else rows


def _row_blocks(
    shards: RowShards, rows: range, workspace: _Workspace
) -> Iterator[tuple[range, np.ndarray]]:
    for block in ranges(rows, _block_rows(WORKING_BYTES, 4 * shards.shape[1])):
        yield block, shards.read(block, workspace("rows", (len(block), shards.shape[1])))


# --- the best of each row and column -----------------------------------------------------------


@dataclass(frozen=True)
class TopK:
    """The k best partners of each of some examples, of both signs.

    `support_*` are the largest positive scores, largest first; `oppose_*` the most negative, most
    negative first. Of equal scores the smaller index comes first. Where fewer than k scores have
    the sign, the rest has index −1 and score 0.

    Attributes:
        support_index, oppose_index: `[n, k]` int32.
        support_score, oppose_score: `[n, k]` float32.
    """

    support_index: np.ndarray
    support_score: np.ndarray
    oppose_index: np.ndarray
    oppose_score: np.ndarray


@dataclass(frozen=True)
class Totals:
    """Sums of scores, positive and negative apart, added up in float64 over blocks of τ.

    A training example's sum over all predictions says how much it matters; a prediction's sum over
    all training examples is what shares of influence are shares of. The units are those of the
    scores, so a prediction with large scores weighs more in a training example's sum.

    Attributes:
        test_support, test_oppose: `[n_test]`, over the training rows that were added.
        train_support, train_oppose: `[n_train]`, over all test rows; 0 where nothing was added.
    """

    test_support: np.ndarray
    test_oppose: np.ndarray
    train_support: np.ndarray
    train_oppose: np.ndarray

    @classmethod
    def zeros(cls, n_test: int, n_train: int) -> Totals:
        return cls(np.zeros(n_test), np.zeros(n_test), np.zeros(n_train), np.zeros(n_train))

    def add(self, first: int, block: np.ndarray) -> None:
        """Add scores `[n_test, b]` of the training rows from `first` on."""
        mine = slice(first, first + block.shape[1])
        for sign, tests, trains in (
            (block > 0, self.test_support, self.train_support),
            (block < 0, self.test_oppose, self.train_oppose),
        ):
            tests += block.sum(axis=1, dtype=np.float64, where=sign)
            trains[mine] += block.sum(axis=0, dtype=np.float64, where=sign)


def top_k(
    scores: Scores,
    k: int,
    trains: range | None = None,
    memory_bytes: int = WORKING_BYTES,
    totals: Totals | None = None,
) -> tuple[TopK, TopK]:
    """Exact top-k of both signs in one pass over τ[:, trains], a block of training rows at a time.

    A long pass is cut by the caller: each range of `trains` makes a shard alone, and `merge`
    joins the test side of the shards into what one pass would have found.

    Args:
        scores: τ.
        k: How many of each sign.
        trains: The training rows to look at; None for all.
        memory_bytes: Bound on temporaries. Results come on top: 16·k bytes for each test example
            and each row of `trains`.
        totals: Add the scores that pass to these.

    Returns:
        For each test example its training examples among `trains` (indices of the whole training
        set), and for each of `trains` its test examples.

    Raises:
        StoreError: A score is not finite.
    """
    trains = _range(trains, scores.n_train)
    workspace = _Workspace()
    tests_best = {sign: np.zeros((scores.n_test, k), np.int64) for sign in (1, -1)}
    by_train = _nobody(len(trains), k)
    # `blocks` counts at least 8 bytes a score; what follows takes 16 more.
    for first, block in scores.blocks(trains, memory_bytes // 3):
        if not np.isfinite([block.min(), block.max()]).all():
            raise StoreError(
                f"Scores of training examples {first} to {first + block.shape[1] - 1} are not all "
                "finite: features or a checkpoint are damaged. `dataloupe doctor` names the file."
            )
        if totals is not None:
            totals.add(first, block)
        turned, index = _rows_first(block, workspace), np.arange(first, first + block.shape[1])
        for sign, best in tests_best.items():
            keys = _largest(_keys(turned, sign, index, workspace), k)
            tests_best[sign] = _largest(np.concatenate([best, keys], axis=1), k)
        turned, index = _rows_first(block.T, workspace), np.arange(scores.n_test)
        found = _decode(*(_largest(_keys(turned, s, index, workspace), k) for s in (1, -1)))
        start = first - trains.start
        for name, array in vars(found).items():
            vars(by_train)[name][start : start + len(array), : array.shape[1]] = array
    return _decode(tests_best[1], tests_best[-1]), by_train


def top_k_among(scores: np.ndarray, candidates: np.ndarray, k: int) -> TopK:
    """Top-k of both signs of `scores` `[n, c]`, whose columns stand for `candidates` `[n, c]`."""
    support, oppose = (
        _padded(_largest(_keys(scores, sign, candidates, _Workspace()), k), k) for sign in (1, -1)
    )
    return _decode(support, oppose)


def merge(parts: Sequence[TopK]) -> TopK:
    """Join the top-k of the same examples among different partners (shards of `top_k`)."""
    k = parts[0].support_index.shape[1]
    index = np.concatenate([part.support_index for part in parts], axis=1)
    score = np.concatenate([part.support_score for part in parts], axis=1)
    support = _largest(_keys(score, 1, index, _Workspace()), k)
    index = np.concatenate([part.oppose_index for part in parts], axis=1)
    score = np.concatenate([part.oppose_score for part in parts], axis=1)
    oppose = _largest(_keys(score, -1, index, _Workspace()), k)
    return _decode(support, oppose)


def _rows_first(block: np.ndarray, workspace: _Workspace) -> np.ndarray:
    """The block in C order, copied if it is not."""
    if block.flags.c_contiguous:
        return block
    out = workspace("rows_first", block.shape)
    np.copyto(out, block)
    return out


def _keys(block: np.ndarray, sign: int, index: np.ndarray, workspace: _Workspace) -> np.ndarray:
    """One int64 for each score: the larger the score times `sign`, the larger the key; of equal
    scores the smaller `index` has the larger key. Scores of the other sign count as 0.

    The bits of a float32 that is not negative order as its value does, so they are the upper half.
    """
    positive = np.multiply(block, np.float32(sign), out=workspace("positive", block.shape))
    np.maximum(positive, 0, out=positive)
    keys = workspace("keys", block.shape, np.int64)
    np.copyto(keys, positive.view(np.int32))
    np.left_shift(keys, 32, out=keys)
    # An index of −1 stands for nobody; its score is 0, and any index under a 0 is read as −1.
    np.bitwise_or(keys, _LOW_BITS - np.maximum(index, 0), out=keys)
    return keys


def _largest(keys: np.ndarray, k: int) -> np.ndarray:
    """The k largest keys of each row (fewer if there are fewer), largest first. Reorders `keys`."""
    if k < keys.shape[1]:
        keys.partition(keys.shape[1] - k, axis=1)
        keys = keys[:, -k:]
    return np.sort(keys, axis=1)[:, ::-1]


def _nobody(n: int, k: int) -> TopK:
    return TopK(
        np.full((n, k), -1, np.int32),
        np.zeros((n, k), np.float32),
        np.full((n, k), -1, np.int32),
        np.zeros((n, k), np.float32),
    )


def _padded(keys: np.ndarray, k: int) -> np.ndarray:
    return np.pad(keys, ((0, 0), (0, k - keys.shape[1])))


def _decode(support: np.ndarray, oppose: np.ndarray) -> TopK:
    support_score, oppose_score = (
        (keys >> 32).astype(np.int32).view(np.float32) for keys in (support, oppose)
    )
    support_index, oppose_index = (
        np.where(score > 0, _LOW_BITS - (keys & _LOW_BITS), -1).astype(np.int32)
        for keys, score in ((support, support_score), (oppose, oppose_score))
    )
    return TopK(support_index, support_score, oppose_index, 0 - oppose_score)
