"""Residual datamodels and their principal directions, in less memory than `n_test × n_train`.

For every test example, the residual is the part of A's attributions that is orthogonal to B's:

    r = a/‖a‖ − ⟨a/‖a‖, b⟩/‖b‖² · b

A *distinguishing direction* of A∖B is a principal direction of these residuals: a weighting of the
training examples along which A's attributions vary and B's do not (ModelDiff, arXiv 2211.12491,
section 3).

The paper's notebooks divide rows by their lengths first, and so do we. The `modeldiff` library
does so only to measure variance, so its directions are dominated by the few test examples with
large attributions (`normalise=False` gives its convention). A row of zeros explains nothing and
stays zero here; the library gives NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from engine.store.rows import ranges

_OVERSAMPLING = 16
_ROWS_BYTES = 2**31
"""Memory for rows of both sides. With fewer rows at a time, factors are read more often."""
_MOST_ITERATIONS = 50
RESAMPLES = 40


class Attributions(Protocol):
    """The part of `engine.attribution.scores.matrix.Scores` that is needed here."""

    @property
    def n_test(self) -> int: ...

    @property
    def n_train(self) -> int: ...

    def rows(self, tests: np.ndarray) -> np.ndarray: ...

    def matmat(self, x: np.ndarray) -> np.ndarray: ...

    def rmatmat(self, y: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Directions:
    """The principal directions of the residuals A∖B, strongest first.

    Attributes:
        weights: Unit vectors `[k, n_train]` float32. Signs are chosen so that the larger weights
            are positive.
        projections: Projections of the centered residuals `[n_test, k]` float32.
        variance: Variance of the residuals along each direction `[k]`.
        variance_a, variance_b: Variance of the attributions of A and of B along each direction,
            with rows scaled to length 1, then centered: shares of (nearly) all their variance.
        stability: How reproducible each direction is under resampling of test examples `[k]`: the
            median cosine with the nearest direction of a resample; 1 means identical.
    """

    weights: np.ndarray
    projections: np.ndarray
    variance: np.ndarray
    variance_a: np.ndarray
    variance_b: np.ndarray
    stability: np.ndarray

    @property
    def distinguishing(self) -> np.ndarray:
        """Variance of A minus variance of B along each direction `[k]`."""
        gap: np.ndarray = self.variance_a - self.variance_b
        return gap


@dataclass(frozen=True)
class Residuals:
    """The centered residuals A∖B as a linear operator: H(diag(α)A − diag(β)B).

    Attributes:
        alpha, beta: `[n_test]` float32.
        norm_a, norm_b: Lengths of the rows `[n_test]`; 1 for rows of zeros.
    """

    a: Attributions
    b: Attributions
    alpha: np.ndarray
    beta: np.ndarray
    norm_a: np.ndarray
    norm_b: np.ndarray

    @property
    def alignment(self) -> float:
        """Mean cosine between A's and B's attributions of a test example."""
        return float(np.mean(self.beta * self.norm_b / (self.alpha * self.norm_a)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.a.n_test, self.a.n_train

    def times(self, x: np.ndarray) -> np.ndarray:
        """`[n_train, r]` → `[n_test, r]`."""
        found: np.ndarray = self.alpha[:, None] * self.a.matmat(x)
        found -= self.beta[:, None] * self.b.matmat(x)
        found -= found.mean(axis=0)
        return found

    def transposed_times(self, y: np.ndarray) -> np.ndarray:
        """`[n_test, r]` → `[n_train, r]`."""
        centered = y - y.mean(axis=0)
        found: np.ndarray = self.a.rmatmat(self.alpha[:, None] * centered)
        found -= self.b.rmatmat(self.beta[:, None] * centered)
        return found


def residuals(a: Attributions, b: Attributions, normalise: bool = True) -> Residuals:
    """The residuals A∖B, from scores before any soft threshold.

    Args:
        a, b: Attributions by two algorithms, of the same test examples to the same training
            examples.
        normalise: Scale A's rows to length 1 first.
    """
    if (a.n_test, a.n_train) != (b.n_test, b.n_train):
        raise ValueError(f"scores are {a.n_test, a.n_train} and {b.n_test, b.n_train}")
    squares_a, squares_b, products = (np.empty(a.n_test) for _ in range(3))
    for tests, rows_a, rows_b in _paired_rows(a, b):
        squares_a[tests] = np.einsum("ij,ij->i", rows_a, rows_a, dtype=np.float64)
        squares_b[tests] = np.einsum("ij,ij->i", rows_b, rows_b, dtype=np.float64)
        products[tests] = np.einsum("ij,ij->i", rows_a, rows_b, dtype=np.float64)
    norm_a = np.sqrt(np.where(squares_a > 0, squares_a, 1))
    norm_b = np.sqrt(np.where(squares_b > 0, squares_b, 1))
    alpha = 1 / norm_a if normalise else np.ones_like(norm_a)
    beta = alpha * products / norm_b**2
    numbers = (array.astype(np.float32) for array in (alpha, beta, norm_a, norm_b))
    return Residuals(a, b, *numbers)


def directions(
    found: Residuals,
    k: int,
    seed: int = 0,
    tolerance: float = 1e-7,
    resamples: int = RESAMPLES,
) -> Directions:
    """Principal directions of the residuals by subspace iteration, from matrix products only.

    Halko, Martinsson and Tropp (2011), algorithm 4.4, repeated until the variances converge. Memory
    is about `(k + 16) · (n_test + n_train)` numbers, in addition to the scores.

    Args:
        found: The result of `residuals`.
        k: Number of directions; at most min(n_test − 1, n_train) exist.
        seed: Seed of the random start and of the resampling for `stability`.
        tolerance: Iteration ends when the variances change by less, relative to the largest.
        resamples: How often to resample for `stability`; without any it is NaN.
    """
    n_test, n_train = found.shape
    width = min(k + _OVERSAMPLING, n_test, n_train)
    k = min(k, width, max(1, n_test - 1))
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((n_test, width), dtype=np.float32)
    before = np.zeros(k)
    for _ in range(_MOST_ITERATIONS):
        basis = np.linalg.qr(found.times(found.transposed_times(basis)))[0]
        columns = found.transposed_times(basis)  # [n_train, width]
        squares, turn = np.linalg.eigh(columns.T.astype(np.float64) @ columns)
        squares, turn = np.maximum(squares[::-1], 0), turn[:, ::-1]
        basis = basis @ turn.astype(np.float32)
        change = np.abs(squares[:k] - before).max()
        before = squares[:k]
        if change <= tolerance * squares[0]:
            break
    lengths = np.sqrt(np.where(squares > squares[0] * 1e-12, squares, np.inf))
    space = (columns @ turn / lengths).astype(np.float32)  # orthonormal columns, strongest first
    inside = found.times(space)  # [n_test, width]
    skew = np.sign((space**3).sum(axis=0, dtype=np.float64))
    signs = np.where(skew == 0, 1, skew).astype(np.float32)
    space, inside = space * signs, inside * signs
    weights = space[:, :k]
    return Directions(
        weights=np.ascontiguousarray(weights.T),
        projections=inside[:, :k],
        variance=squares[:k] / n_test,
        variance_a=variance_along(found.a, found.norm_a, weights),
        variance_b=variance_along(found.b, found.norm_b, weights),
        stability=_stability(inside, k, rng, resamples),
    )


def variance_along(scores: Attributions, norms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Variance along unit vectors `[n_train, k]` of rows scaled to length 1, then centered."""
    along = scores.matmat(weights).astype(np.float64) / norms[:, None]
    spread: np.ndarray = along.var(axis=0)
    return spread


def _stability(inside: np.ndarray, k: int, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Median cosines under resampling of test examples, by PCA within the subspace found.

    Args:
        inside: Residuals in the coordinates of the directions found, `[n_test, width]`.
    """
    if not resamples:
        return np.full(k, np.nan)
    cosines = np.empty((resamples, k))
    for number in range(resamples):
        rows = inside[rng.integers(len(inside), size=len(inside))].astype(np.float64)
        rows -= rows.mean(axis=0)
        again = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :k]
        cosines[number] = np.abs(again[:k]).max(axis=1)
    found: np.ndarray = np.median(cosines, axis=0)
    return found


def _paired_rows(
    a: Attributions, b: Attributions
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    a, b = without_threshold(a), without_threshold(b)
    step = max(1, _ROWS_BYTES // (8 * a.n_train))
    for tests in ranges(range(a.n_test), step):
        numbers = np.arange(tests.start, tests.stop)
        yield slice(tests.start, tests.stop), a.rows(numbers), b.rows(numbers)


def squared_lengths(scores: Attributions) -> np.ndarray:
    """Of the rows `[n_test]` float64."""
    found = np.empty(scores.n_test)
    step = max(1, _ROWS_BYTES // (4 * scores.n_train))
    for tests in ranges(range(scores.n_test), step):
        rows = scores.rows(np.arange(tests.start, tests.stop))
        found[tests.start : tests.stop] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return found


def without_threshold(scores: Any) -> Any:
    """The same scores before the soft threshold, as `matmat` and `rmatmat` use them."""
    if getattr(scores, "threshold", None) is None:
        return scores
    return replace(scores, threshold=None)
