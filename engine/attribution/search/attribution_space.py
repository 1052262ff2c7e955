"""The attribution space: a low-rank factorization τ ≈ U S Vᵀ of the score matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.scores.blocks import WORKING_BYTES
from engine.attribution.scores.matrix import Scores
from engine.store.rows import ranges

_OVERSAMPLING = 16
_PROBE_ROWS = 65_536


@dataclass(frozen=True)
class AttributionSpace:
    """A truncated singular value decomposition of τ with its rows scaled to the same length.

    Attributes:
        left: U `[n_test, r]` float32, orthonormal columns.
        singular_values: S `[r]` float32, largest first, all positive.
        row_norms: Estimated lengths of the rows of τ, by which they were divided, `[n_test]`
            float32.
    """

    left: np.ndarray
    singular_values: np.ndarray
    row_norms: np.ndarray

    def test_vectors(self) -> np.ndarray:
        """U·√S `[n_test, r]`. The product with a train vector is τ divided by the row's length."""
        vectors: np.ndarray = self.left * np.sqrt(self.singular_values)
        return vectors

    def train_vectors(self, scores: Scores, trains: range) -> np.ndarray:
        """V·√S of some training rows, `[len(trains), r]` float32."""
        weights = self.left / (self.row_norms[:, None] * np.sqrt(self.singular_values))
        return scores.rmatmat(weights, trains)


def attribution_space(
    scores: Scores,
    rank: int,
    seed: int,
    power_iterations: int = 2,
    memory_bytes: int = WORKING_BYTES,
) -> AttributionSpace:
    """Randomized SVD of τ, from products with thin matrices only.

    Halko, Martinsson and Tropp, "Finding structure with randomness" (2011), algorithms 4.4 and
    5.1, on the side of the test examples, so that nothing of size n_train is ever held. Rows of τ
    are first scaled to the same length: the top-k of a row does not depend on its length, and
    without scaling a few test examples with large scores would take all directions.

    Args:
        scores: τ.
        rank: Directions to keep, at most min(n_test, n_train).
        seed: Of the random matrices.
        power_iterations: Products with ττᵀ. Each takes two passes over τ and makes the result more
            accurate.
        memory_bytes: Limit for temporary arrays, apart from those of `[n_test, rank]`.
    """
    rng = np.random.default_rng(seed)
    rank = min(rank, scores.n_test, scores.n_train)
    width = min(rank + _OVERSAMPLING, scores.n_test)
    row_norms = _estimated_row_norms(scores, rng)
    step = max(1, memory_bytes // (8 * width))
    basis = rng.standard_normal((scores.n_test, width), dtype=np.float32)
    for _ in range(power_iterations):
        image = np.zeros_like(basis)
        for trains in ranges(range(scores.n_train), step):
            image += scores.matmat(scores.rmatmat(basis / row_norms, trains), trains)
        basis = np.linalg.qr(image / row_norms)[0]
    small = np.zeros((width, width))
    for trains in ranges(range(scores.n_train), step):
        projected = scores.rmatmat(basis / row_norms, trains)
        small += projected.T @ projected
    eigenvalues, vectors = np.linalg.eigh(small)
    vectors = vectors[:, ::-1][:, :rank]
    left = basis @ vectors.astype(np.float32)
    strongest = np.abs(left).argmax(axis=0)
    left *= np.sign(left[strongest, np.arange(rank)])  # the signs of an SVD are arbitrary; fix them
    singular_values = np.sqrt(np.maximum(eigenvalues[::-1][:rank], 0)).astype(np.float32)
    # S only divides each direction's weight between test and train vectors, and their product does
    # not depend on it. So tiny values, which float32 cannot resolve, may be raised.
    floor = max(float(singular_values[0]) * 1e-4, 1e-18)
    return AttributionSpace(left, np.maximum(singular_values, floor), row_norms[:, 0])


def _estimated_row_norms(scores: Scores, rng: np.random.Generator) -> np.ndarray:
    """Row lengths of τ to about 10 %, `[n_test, 1]`: for random signs s, E(τs)² = ‖τ‖²."""
    total = np.zeros((scores.n_test, 1))
    probes = 64
    for trains in ranges(range(scores.n_train), _PROBE_ROWS):
        signs = rng.integers(0, 2, (len(trains), probes)).astype(np.float32) * 2 - 1
        total += (scores.matmat(signs, trains) ** 2).mean(axis=1, keepdims=True)
    norms = np.sqrt(total).astype(np.float32)
    return np.where(norms > 0, norms, np.float32(1))
