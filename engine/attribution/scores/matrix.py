"""What every form of the score matrix τ `[n_test, n_train]` offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.attribution.scores.blocks import WORKING_BYTES, Workspace, block_rows
from engine.attribution.scores.read_ahead import Seconds
from engine.store.rows import ranges


@dataclass(frozen=True)
class Tile:
    """A part of τ.

    Attributes:
        tests, trains: Whose scores they are.
        scores: float32 `[len(tests), len(trains)]`, in C or Fortran order.
    """

    tests: range
    trains: range
    scores: np.ndarray


class Scores(Protocol):
    """The score matrix τ `[n_test, n_train]`, of which any part can be read.

    All scores returned are float32. They are soft-thresholded where a threshold S is set for each
    test example x: sign(τ)·max(|τ| − S_x, 0). Only `matmat` and `rmatmat`, the products with the
    linear operator τ, ignore the threshold. Memory is limited by what the caller allows or by
    what is returned, never by `n_train`.
    """

    @property
    def n_test(self) -> int: ...

    @property
    def n_train(self) -> int: ...

    def rows(self, tests: np.ndarray) -> np.ndarray:
        """Scores of some test examples with every training example: `[len(tests), n_train]`."""

    def columns(self, trains: np.ndarray) -> np.ndarray:
        """Scores of every test example with some training examples: `[n_test, len(trains)]`."""

    def sums(self, trains: np.ndarray) -> np.ndarray:
        """For every test example, the sum of its scores with some training examples: float64
        `[n_test]`, in limited memory."""

    def pairs(self, tests: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Scores of each of `tests` `[t]` with its own `candidates` `[t, c]`: `[t, c]`."""

    def tiles(
        self,
        trains: range | None = None,
        memory_bytes: int = WORKING_BYTES,
        seconds: Seconds | None = None,
    ) -> Iterator[Tile]:
        """Yield every score with `trains` once: blocks of training examples in order, and within
        each of them all test examples in order.

        The next step overwrites a tile's scores: copy what you want to keep.

        Args:
            memory_bytes: Limit for temporary arrays.
            seconds: Gets the time that reading and multiplying took.
        """

    def matmat(self, x: np.ndarray, trains: range | None = None) -> np.ndarray:
        """τ[:, trains] @ x, with x `[len(trains), r]`: `[n_test, r]`. No soft threshold."""

    def rmatmat(self, y: np.ndarray, trains: range | None = None) -> np.ndarray:
        """τ[:, trains]ᵀ @ y, with y `[n_test, r]`: `[len(trains), r]`. No soft threshold."""


def sum_of_columns(scores: Scores, trains: np.ndarray) -> np.ndarray:
    """`Scores.sums` by reading every score."""
    total = np.zeros(scores.n_test)
    for block in _blocks_of_columns(scores, trains):
        total += block.sum(axis=1, dtype=np.float64)
    return total


def sums_of_squares(scores: Scores, trains: np.ndarray) -> np.ndarray:
    """For every test example, the sum of its squared scores with some training examples: float64
    `[n_test]`, in limited memory."""
    total = np.zeros(scores.n_test)
    for block in _blocks_of_columns(scores, trains):
        total += np.square(block).sum(axis=1, dtype=np.float64)
    return total


def _blocks_of_columns(scores: Scores, trains: np.ndarray) -> Iterator[np.ndarray]:
    """Scores of every test example with some training examples, in limited memory."""
    for part in ranges(range(len(trains)), block_rows(WORKING_BYTES, 8 * scores.n_test)):
        yield scores.columns(np.asarray(trains)[part.start : part.stop])


def all_rows_if_none(trains: range | None, n_train: int) -> range:
    """The training rows that `trains` stands for: None is all of them."""
    return range(n_train) if trains is None else trains


def shrink(block: np.ndarray, threshold: np.ndarray | None, workspace: Workspace) -> None:
    """Apply the soft threshold in place; `threshold` broadcasts with `block`."""
    if threshold is not None:
        block -= np.clip(block, -threshold, threshold, out=workspace("shrink", block.shape))
