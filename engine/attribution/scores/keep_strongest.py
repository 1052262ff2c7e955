"""Compiled loops over tiles of scores (numba): keep the strongest of each row and of each column.

Most scores of a large matrix are weaker than the k-th strongest of their row and of their column so
far. One comparison of 16 scores at a time passes over those, and the others go into small buffers
that are cut back to the k strongest when they are full.

Each process compiles the loops on the first call, in about three seconds. (Numba's cache on disk
consists of pickles, and fails where no folder can be written.)
"""

from __future__ import annotations

import numpy as np
from numba import njit

_LANES = 16
"""Scores that are compared at once: one AVX-512 register."""
_LOW_BITS = np.int64(2**32 - 1)
_SIZE_BITS = np.int32(0x7FFFFFFF)
"""All bits of a float32 but its sign."""
_INFINITY = np.int32(0x7F800000)
"""The bits of infinity; those of NaN are larger."""


@njit(nogil=True)  # type: ignore[untyped-decorator]
def offer(
    bits: np.ndarray,
    first_row: int,
    first_column: int,
    k: int,
    row_keys: np.ndarray,
    row_counts: np.ndarray,
    row_limits: np.ndarray,
    column_keys: np.ndarray,
    column_counts: np.ndarray,
    column_limits: np.ndarray,
) -> int:
    """Offer every score of a tile to its row and to its column.

    Support is sign 0 and opposition sign 1. A key is what
    `engine.attribution.scores.strongest.Strongest` says.

    Args:
        bits: The tile `[rows, columns]` float32, seen as int32.
        first_row: Number of the tile's first row among the candidates of its columns. Tiles must
            come in ascending order, so that of equal scores the first one stays.
        first_column: The same of its first column.
        k: How many to keep of each sign.
        row_keys, column_keys: Buffers of more than k keys, `[n, 2, room]` int64.
        row_counts, column_counts: How many keys are in each buffer, `[n, 2]` int32.
        row_limits, column_limits: Bits of the score that a new one must exceed, `[n, 2]` int32.

    Returns:
        −1, or the place of a score that is not finite: row · columns + column.
    """
    n_rows, n_columns = bits.shape
    scores = bits.view(np.float32)
    row_scores, column_scores = row_limits.view(np.float32), column_limits.view(np.float32)
    upper, lower = np.empty(n_columns, np.float32), np.empty(n_columns, np.float32)
    strong = np.empty(n_columns, np.int32)
    for i in range(n_rows):
        if i % 32 == 0:  # the limits rise while the loop runs, but older ones are right, too
            for j in range(n_columns):
                upper[j], lower[j] = column_scores[j, 0], -column_scores[j, 1]
        row, high, low = scores[i], row_scores[i, 0], -row_scores[i, 1]
        n_strong = 0
        for start in range(0, n_columns, _LANES):
            stop, some = min(start + _LANES, n_columns), np.int32(0)
            if stop - start == _LANES:
                # A constant number of steps and no branch make this one vector operation each.
                for lane in range(_LANES):
                    score, most, least = row[start + lane], upper[start + lane], lower[start + lane]
                    most, least = most if most < high else high, least if least > low else low
                    some |= np.int32(not score <= most) | np.int32(not score >= least)
            else:
                some = np.int32(1)
            if some:
                for j in range(start, stop):
                    most, least = upper[j], lower[j]
                    most, least = most if most < high else high, least if least > low else low
                    strong[n_strong] = j
                    n_strong += not (row[j] <= most and row[j] >= least)  # true of NaN
        for place in range(n_strong):
            j = strong[place]
            size, sign = bits[i, j], 0
            if size < 0:
                size, sign = size & _SIZE_BITS, 1
            if size >= _INFINITY:
                bad: int = i * n_columns + j
                return bad
            if size > row_limits[i, sign]:
                key = (np.int64(size) << 32) | (_LOW_BITS - first_column - j)
                _put(row_keys, row_counts, row_limits, i, sign, k, key)
            if size > column_limits[j, sign]:
                key = (np.int64(size) << 32) | (_LOW_BITS - first_row - i)
                _put(column_keys, column_counts, column_limits, j, sign, k, key)
    return -1


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _put(
    keys: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
    i: int,
    sign: int,
    k: int,
    key: np.int64,
) -> None:
    """Add a key to buffer (i, sign); if that fills it, keep the k largest and raise the limit."""
    count = counts[i, sign]
    keys[i, sign, count] = key
    count += 1
    if count == keys.shape[2]:
        _largest_first(keys, i, sign, k)
        count = k
        limits[i, sign] = keys[i, sign, k - 1] >> 32
    counts[i, sign] = count


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _largest_first(keys: np.ndarray, i: int, sign: int, k: int) -> None:
    """Reorder a full buffer so that the k largest keys come first and the k-th largest is the last
    of them (Hoare's selection). Keys differ, since no two have the same example."""
    left, right = 0, keys.shape[2] - 1
    while left < right:
        pivot = keys[i, sign, (left + right) >> 1]
        up, down = left, right
        while up <= down:
            while keys[i, sign, up] > pivot:
                up += 1
            while keys[i, sign, down] < pivot:
                down -= 1
            if up <= down:
                larger, smaller = keys[i, sign, down], keys[i, sign, up]
                keys[i, sign, up], keys[i, sign, down] = larger, smaller
                up += 1
                down -= 1
        if k - 1 <= down:
            right = down
        elif k - 1 >= up:
            left = up
        else:
            return


@njit(nogil=True)  # type: ignore[untyped-decorator]
def add_totals(
    scores: np.ndarray,
    row_support: np.ndarray,
    row_oppose: np.ndarray,
    column_support: np.ndarray,
    column_oppose: np.ndarray,
) -> None:
    """Add the positive and the negative scores of a tile `[rows, columns]` to float64 sums."""
    n_rows, n_columns = scores.shape
    whole = n_columns - n_columns % _LANES
    support, oppose = np.empty(_LANES), np.empty(_LANES)
    for i in range(n_rows):
        for j in range(n_columns):
            score = np.float64(scores[i, j])
            positive = score if score > 0 else 0.0
            column_support[j] += positive
            column_oppose[j] += score - positive
        support[:], oppose[:] = 0, 0
        # Sums in as many lanes on every processor, so that rounding is the same.
        for start in range(0, whole, _LANES):
            for lane in range(_LANES):
                score = np.float64(scores[i, start + lane])
                positive = score if score > 0 else 0.0
                support[lane] += positive
                oppose[lane] += score - positive
        for j in range(whole, n_columns):
            score = np.float64(scores[i, j])
            positive = score if score > 0 else 0.0
            support[0] += positive
            oppose[0] += score - positive
        row_support[i] += support.sum()
        row_oppose[i] += oppose.sum()
