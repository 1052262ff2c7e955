"""Compiled loops of the lasso on the CPU (numba). The problem is described in
`engine.attribution.datamodels.lasso`.

All arrays are C-contiguous. Each process compiles the loops on the first call, in about two
seconds. (Numba's cache on disk consists of pickles, and fails where no folder can be written.)
"""

from __future__ import annotations

import numpy as np
from numba import njit

_ONES = np.uint64(0x5555555555555555)
_TWOS = np.uint64(0x3333333333333333)
_FOURS = np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES = np.uint64(0x0101010101010101)


@njit(inline="always")  # type: ignore[untyped-decorator]
def _count(word: np.uint64) -> np.uint64:
    """Number of set bits in a word, in a form that compilers turn into vector instructions."""
    word = word - ((word >> np.uint64(1)) & _ONES)
    word = (word & _TWOS) + ((word >> np.uint64(2)) & _TWOS)
    word = (word + (word >> np.uint64(4))) & _FOURS
    return (word * _BYTES) >> np.uint64(56)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def descend(
    bits: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    columns: np.ndarray,
    penalty: np.float32,
    tolerance: np.float32,
    most_sweeps: int,
    gradient: np.ndarray,
    weights: np.ndarray,
    residual: np.ndarray,
    members: np.ndarray,
    known: np.ndarray,
    gram: np.ndarray,
) -> None:
    """Minimize over one target's working set.

    The correlations of a column with the others are counted from the bits of the masks when its
    weight first changes, and kept. So no `[n, n]` matrix is ever needed.

    Args:
        bits: Packed masks by column, `[n, words]` uint64.
        mean: Share of the runs whose mask has each example, `[n]` float64.
        scale: 1 / standard deviation of each column of the masks, `[n]` float64.
        columns: The standardized masks by column, `[n, m]` float32.
        penalty: λ.
        tolerance: The descent ends when no step of a sweep is larger.
        most_sweeps: The most passes over the working set.
        gradient: X̃ᵀr / m, `[n]` float32.
        weights: `[n]` float32, changed in place.
        residual: `[m]` float32, changed in place.
        members: Columns of the working set, `[w]`.
        known: How many entries of each row of `gram` are computed, `[w]`; kept up to date.
        gram: Correlations within the working set, `[w, w]` or larger, float32; filled in as needed.
    """
    count, m = len(members), len(residual)
    q = gradient[members]
    w = weights[members]
    packed, mean, scale = bits[members], mean[members], scale[members]  # contiguous in memory
    words, share = packed.shape[1], 1 / m
    everything = True
    for _ in range(most_sweeps):
        largest = np.float32(0)
        for a in range(count):
            if w[a] == 0 and not everything:
                continue
            there = q[a] + w[a]
            new = max(there - penalty, np.float32(0)) - max(-there - penalty, np.float32(0))
            step = new - w[a]
            if step == 0:
                continue
            row = gram[a]
            if known[a] < count:
                for b in range(known[a], count):
                    if known[b] > a:
                        row[b] = gram[b, a]
                        continue
                    both = np.uint64(0)
                    for k in range(words):
                        both += _count(packed[a, k] & packed[b, k])
                    row[b] = (np.int64(both) * share - mean[a] * mean[b]) * scale[a] * scale[b]
                known[a] = count
            for b in range(count):
                q[b] -= step * row[b]
            w[a] = new
            largest = max(largest, abs(step))
        if largest > tolerance:
            everything = False
        elif everything:
            break
        else:
            everything = True  # weights at zero may no longer be optimal
    for a in range(count):
        j = members[a]
        step = w[a] - weights[j]
        if step != 0:
            for k in range(m):
                residual[k] -= step * columns[j, k]
            weights[j] = w[a]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def joining(gradient: np.ndarray, bound: np.float32, inside: np.ndarray) -> np.ndarray:
    """Columns with |g_j| above a bound that are not in `inside` `[n]` yet; marks them there."""
    found = np.flatnonzero((np.abs(gradient) > bound) & ~inside)
    inside[found] = True
    return found


@njit(nogil=True)  # type: ignore[untyped-decorator]
def grown(gram: np.ndarray, known: np.ndarray, size: int) -> np.ndarray:
    """A larger copy of `gram`. Only known entries are copied, so unused rows take no memory."""
    larger = np.empty((size, size), np.float32)
    for a in range(len(known)):
        for b in range(known[a]):
            larger[a, b] = gram[a, b]
    return larger


@njit(nogil=True)  # type: ignore[untyped-decorator]
def violations(
    gradient: np.ndarray, weights: np.ndarray, targets: np.ndarray, penalty: np.ndarray
) -> np.ndarray:
    """How far from optimal each target is: `[len(targets)]` float32.

    That is the largest violation of |g_j| ≤ λ where w_j = 0, and of g_j = λ sign(w_j) elsewhere.

    Args:
        gradient: g `[t, n]`.
        weights: w `[t, n]`.
        targets: Rows to look at.
        penalty: λ of each of them, `[len(targets)]`.
    """
    result = np.zeros(len(targets), np.float32)
    for place in range(len(targets)):
        t, bound = targets[place], penalty[place]
        for j in range(weights.shape[1]):
            if weights[t, j] > 0:
                error = abs(gradient[t, j] - bound)
            elif weights[t, j] < 0:
                error = abs(gradient[t, j] + bound)
            else:
                error = abs(gradient[t, j]) - bound
            result[place] = max(result[place], error)
    return result
