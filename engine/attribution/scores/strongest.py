"""The k strongest scores of both signs of each example, kept while scores come in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.scores.blocks import Workspace
from engine.store.rows import ranges

_LOW_BITS = np.int64(2**32 - 1)
_ROOM = 2
"""A buffer holds so many times k keys."""
_ROWS_AT_ONCE = 4096
_PIECE = 2**18
"""Scores of which keys are made at once: 2 MiB of keys."""


@dataclass(frozen=True)
class TopK:
    """The k strongest scores of both signs for each of n examples, and whose they are.

    `support_*` are the largest positive scores, largest first; `oppose_*` the most negative ones,
    most negative first. Ties are ordered by index. Where fewer than k scores have the sign, the
    remaining places have index −1 and score 0.

    Attributes:
        support_index, oppose_index: `[n, k]` int32.
        support_score, oppose_score: `[n, k]` float32.
    """

    support_index: np.ndarray
    support_score: np.ndarray
    oppose_index: np.ndarray
    oppose_score: np.ndarray


class Strongest:
    """The k strongest scores of both signs so far of n examples, 32 · k bytes each.

    A score is kept as a key, an int64: the larger its size, the larger the key, and of equal sizes
    the one with the smaller index has the larger key. The upper half is the bits of the size, since
    the bits of non-negative float32 numbers have the same order as the numbers. 0 is no score.

    Attributes:
        keys: `[n, 2, 2k]` int64, of support and of opposition.
        counts: How many of them are in use, `[n, 2]` int32.
        limits: Bits of a score that k others exceed or precede, `[n, 2]` int32.
    """

    def __init__(self, n: int, k: int) -> None:
        self.k = k
        self.keys = np.zeros((n, 2, _ROOM * k), np.int64)
        self.counts = np.zeros((n, 2), np.int32)
        self.limits = np.zeros((n, 2), np.int32)

    def clear(self) -> None:
        """Forget all scores."""
        self.counts[:] = 0
        self.limits[:] = 0

    def arrays(self, rows: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys, counts and limits of some examples, to be changed in place."""
        part = slice(rows.start, rows.stop)
        return self.keys[part], self.counts[part], self.limits[part]

    def offer(self, rows: range, first: int, scores: np.ndarray, workspace: Workspace) -> None:
        """Keep what is strongest of more scores.

        Args:
            rows: The examples.
            first: Index of the first candidate.
            scores: `[len(rows), candidates]`, finite.
        """
        index = np.arange(first, first + scores.shape[1])
        step = max(1, _PIECE // max(1, scores.shape[1]))
        for start in range(0, len(rows), step):
            piece = scores[start : start + step]
            place = slice(rows.start + start, rows.start + start + len(piece))
            for number, sign in enumerate((1, -1)):
                new = largest(make_keys(piece, sign, index, workspace), self.k)
                kept = self._used(number, place)
                both = largest(np.concatenate([kept, new], axis=1), self.k)
                self.keys[place, number, : both.shape[1]] = both
                self.counts[place, number] = both.shape[1]

    def top(self, rows: range | None = None) -> TopK:
        """The strongest scores of all examples, or of some."""
        rows = range(len(self.keys)) if rows is None else rows
        found = TopK(
            np.empty((len(rows), self.k), np.int32),
            np.empty((len(rows), self.k), np.float32),
            np.empty((len(rows), self.k), np.int32),
            np.empty((len(rows), self.k), np.float32),
        )
        for some in ranges(rows, _ROWS_AT_ONCE):
            place = slice(some.start, some.stop)
            support, oppose = (largest(self._used(sign, place), self.k) for sign in (0, 1))
            for name, array in vars(decode(support, oppose)).items():
                vars(found)[name][some.start - rows.start : some.stop - rows.start] = array
        return found

    def _used(self, sign: int, place: slice) -> np.ndarray:
        """Keys `[rows, 2k]`, 0 where a buffer is not in use."""
        used = np.arange(self.keys.shape[2]) < self.counts[place, sign, None]
        return np.where(used, self.keys[place, sign], 0)


def make_keys(block: np.ndarray, sign: int, index: np.ndarray, workspace: Workspace) -> np.ndarray:
    """A key for each score · `sign`; scores of the other sign count as 0."""
    positive = np.multiply(block, np.float32(sign), out=workspace("positive", block.shape))
    np.maximum(positive, 0, out=positive)
    keys = workspace("keys", block.shape, np.int64)
    np.copyto(keys, positive.view(np.int32))
    np.left_shift(keys, 32, out=keys)
    # Index −1 means no example: its score is 0, and any index with score 0 is decoded as −1.
    np.bitwise_or(keys, _LOW_BITS - np.maximum(index, 0), out=keys)
    return keys


def largest(keys: np.ndarray, k: int) -> np.ndarray:
    """The k largest keys of each row, or all if fewer, largest first. Reorders `keys`."""
    if k < keys.shape[1]:
        keys.partition(keys.shape[1] - k, axis=1)
        keys = keys[:, -k:]
    return np.sort(keys, axis=1)[:, ::-1]


def padded(keys: np.ndarray, k: int) -> np.ndarray:
    """Keys `[n, k]`, with 0 where there are fewer."""
    return np.pad(keys, ((0, 0), (0, k - keys.shape[1])))


def decode(support: np.ndarray, oppose: np.ndarray) -> TopK:
    """Sorted keys `[n, k]` of both signs as indexes and scores."""
    support_score, oppose_score = (
        (keys >> 32).astype(np.int32).view(np.float32) for keys in (support, oppose)
    )
    support_index, oppose_index = (
        np.where(score > 0, _LOW_BITS - (keys & _LOW_BITS), -1).astype(np.int32)
        for keys, score in ((support, support_score), (oppose, oppose_score))
    )
    return TopK(support_index, support_score, oppose_index, 0 - oppose_score)
