"""Maps: the attribution space in two dimensions, training and test examples together.

A training example is placed near those with the same effects on predictions; a test example near
those that the same training examples support, and near these training examples. Both are rows of
the factors of τ ≈ U S Vᵀ (`engine.attribution.search.attribution_space`) with √S on either side, so
that their products are scores. Only the first directions are used, and all rows are scaled to
length 1. The other directions differ between the two sides: with them, the neighbors of an example
would be mostly of its own kind. (In the demo, test examples make up 9 % of a test example's 15
nearest by all 512 directions and 16.5 % by the first 64; their share of all examples is 16.7 %.)

UMAP is our own: umap-learn takes 15 s to import and 45 s to compile for a first map of 6,000
points, and needs scikit-learn, for what numba and FAISS already offer.

Importing this module imports neither torch, FAISS nor numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from engine.attribution.scores.row_shards import RowShards
from engine.attribution.search.vector_index import build_index
from engine.store.rows import evenly_spread, ranges

DIRECTIONS = 64
NEIGHBORS = 15
MOST_POINTS = 60_000
"""At most this many points are laid out. Further ones are placed amid their nearest."""

_A, _B = 1.5769434, 0.8950609
"""The curve 1 / (1 + a d^2b) that turns distances into memberships, for UMAP's `min_dist` 0.1."""
_FAR = 5
"""Negative samples: points that a point is pushed from for each one it is pulled to."""
_AMID = 5
_ROWS = 4096


def comparable_rows(vectors: np.ndarray) -> np.ndarray:
    """The first `DIRECTIONS` of attribution vectors, rows scaled to length 1: float32 `[n, d]`.

    Args:
        vectors: Test vectors U√S or train vectors V√S, `[n, r]`, strongest direction first.
    """
    rows = np.array(vectors[:, :DIRECTIONS], np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, np.float32(1))  # a row of zeros stays zero
    return rows


def pca(rows: np.ndarray) -> np.ndarray:
    """The first two principal components of rows `[n, d]`, float32 `[n, 2]`."""
    centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1, 1)
    found = np.zeros((len(rows), 2), np.float32)
    found[:, : axes.shape[1]] = centered @ axes
    return found


def umap(
    rows: np.ndarray, seed: int, epochs: int | None = None, most: int = MOST_POINTS
) -> np.ndarray:
    """UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426) of rows of length 1, by cosine.

    The same rows and seed give the same bytes.

    Args:
        rows: `[n, d]` float32.
        seed: Of the layout.
        epochs: Of the layout; None: 500, or 200 for more than 10,000 points.
        most: The most points to lay out.

    Returns:
        Coordinates, float32 `[n, 2]`.
    """
    n = len(rows)
    if n <= NEIGHBORS + 1:
        return pca(rows)
    laid_out = evenly_spread(n, min(n, most))
    mine = np.ascontiguousarray(rows[laid_out])
    index, distance = _nearest(mine, mine, NEIGHBORS + 1)
    index, distance = _without_itself(index, distance)
    heads, tails, weights = _edges(index, _memberships(distance))
    place = pca(mine).astype(np.float64)
    # Equal rows start at the same point and could never separate.
    place = 10 * place / (np.abs(place).max() or 1.0)
    place += np.random.default_rng(seed).normal(scale=1e-4, size=place.shape)
    epochs = epochs or (500 if len(mine) <= 10_000 else 200)
    place = place.astype(np.float32)
    _layout()(place, heads, tails, _epochs_per_pull(weights, epochs), epochs, seed % 2**31 + 1)
    if len(laid_out) == n:
        return place
    found = np.empty((n, 2), np.float32)
    near, _ = _nearest(mine, rows, _AMID)
    found[:] = place[near].mean(axis=1)
    found[laid_out] = place
    return found


def _nearest(rows: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, distances 1 − cosine) of the k nearest of each query, nearest first, `[t, k]`."""
    index = build_index(RowShards.of([rows]), "flat", seed=0)
    found = [
        index.search(np.ascontiguousarray(queries[part.start : part.stop]), k)
        for part in ranges(range(len(queries)), _ROWS)
    ]
    alike, near = (np.concatenate(column) for column in zip(*found, strict=True))
    return near.astype(np.int64), np.maximum(1 - alike.astype(np.float64), 0)


def _without_itself(index: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop each row from its own neighbors, or its last neighbor if equal rows displaced it."""
    itself = index == np.arange(len(index))[:, None]
    itself[~itself.any(axis=1), -1] = True
    shape = len(index), index.shape[1] - 1
    return index[~itself].reshape(shape), distance[~itself].reshape(shape)


def _memberships(distance: np.ndarray) -> np.ndarray:
    """Membership of each neighbor `[n, k]`: exp(−(d − nearest) / σ); each row sums to log₂ k."""
    nearest = np.where(distance > 0, distance, np.inf).min(axis=1, keepdims=True)
    beyond = np.maximum(distance - np.where(np.isfinite(nearest), nearest, 0), 0)
    low, high = np.zeros((len(distance), 1)), np.full((len(distance), 1), np.inf)
    sigma = np.ones((len(distance), 1))
    goal = np.log2(distance.shape[1])
    for _ in range(64):
        much = np.exp(-beyond / sigma).sum(axis=1, keepdims=True) > goal
        high = np.where(much, sigma, high)
        low = np.where(much, low, sigma)
        sigma = np.where(np.isfinite(high), (low + high) / 2, 2 * sigma)
    floor = 1e-3 * np.maximum(distance.mean(axis=1, keepdims=True), 1e-12)
    memberships: np.ndarray = np.exp(-beyond / np.maximum(sigma, floor))
    return memberships


def _edges(index: np.ndarray, membership: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(heads, tails, weights) of the fuzzy union: a + b − ab, each pair in both directions."""
    n, k = index.shape
    own = np.repeat(np.arange(n, dtype=np.int64), k)
    keys = np.concatenate([own * n + index.ravel(), index.ravel() * n + own])
    weights = np.tile(membership.ravel(), 2)
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1) != 0)
    # A pair occurs once or twice: as a neighbor of one, of the other, or of both.
    doubt = np.multiply.reduceat(1 - weights, first)
    heads, tails = np.divmod(keys[first], n)
    return heads, tails, 1 - doubt


def _epochs_per_pull(weights: np.ndarray, epochs: int) -> np.ndarray:
    """Epochs between two pulls along each edge; infinite for edges too weak for any."""
    pulls = epochs * weights / weights.max()
    return np.where(pulls >= 1, epochs / np.maximum(pulls, 1), np.inf)


@cache
def _layout() -> Callable[..., None]:
    """Compiled stochastic gradient descent on the layout: one thread, so one order."""
    import numba

    @numba.njit  # type: ignore[untyped-decorator]
    def layout(
        place: np.ndarray,
        heads: np.ndarray,
        tails: np.ndarray,
        between: np.ndarray,
        epochs: int,
        seed: int,
    ) -> None:
        n = len(place)
        pull_at = between.copy()
        push_at = between / _FAR
        state = np.uint64(seed)
        for epoch in range(epochs):
            rate = 1 - epoch / epochs
            for edge in range(len(heads)):
                if pull_at[edge] > epoch:
                    continue
                head, tail = heads[edge], tails[edge]
                x, y = place[head, 0] - place[tail, 0], place[head, 1] - place[tail, 1]
                square = x * x + y * y
                if square > 0:
                    force = -2 * _A * _B * square ** (_B - 1) / (1 + _A * square**_B)
                    for axis, way in enumerate((x, y)):
                        step = np.float32(rate * min(4.0, max(-4.0, force * way)))
                        place[head, axis] += step
                        place[tail, axis] -= step
                pull_at[edge] += between[edge]
                for _ in range(int((epoch - push_at[edge]) / (between[edge] / _FAR))):
                    # xorshift64: no generator of numba is the same in every version.
                    state ^= state << np.uint64(13)
                    state ^= state >> np.uint64(7)
                    state ^= state << np.uint64(17)
                    other = np.int64(state % np.uint64(n))
                    x, y = place[head, 0] - place[other, 0], place[head, 1] - place[other, 1]
                    square = x * x + y * y
                    if other != head and square > 0:
                        force = 2 * _B / ((0.001 + square) * (1 + _A * square**_B))
                        for axis, way in enumerate((x, y)):
                            step = np.float32(rate * min(4.0, max(-4.0, force * way)))
                            place[head, axis] += step
                    push_at[edge] += between[edge] / _FAR

    compiled: Callable[..., None] = layout
    return compiled
