"""Sparse scores against the dense matrix."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.sparse import SparseScores
from engine.attribution.scores.top_k import top_k


@given(st.integers(1, 9), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_sparse_scores_equal_the_dense_matrix(
    n_test: int, n_train: int, density: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    tau = random.normal(size=(n_test, n_train)).astype(np.float32)
    tau[random.random(tau.shape) > density] = 0
    cut = n_test // 2
    sparse = SparseScores([csr_array(tau[:cut]), csr_array(tau[cut:])])
    tests, trains = random.integers(n_test, size=5), random.integers(n_train, size=6)
    assert (sparse.n_test, sparse.n_train) == tau.shape
    np.testing.assert_array_equal(sparse.rows(tests), tau[tests])
    np.testing.assert_array_equal(sparse.columns(trains), tau[:, trains])
    candidates = random.integers(n_train, size=(5, 3))
    np.testing.assert_array_equal(
        sparse.pairs(tests, candidates), np.take_along_axis(tau[tests], candidates, 1)
    )
    part = range(n_train // 3, n_train)
    for tile in sparse.tiles(part, memory_bytes=8 * n_test * 4):
        wanted = tau[tile.tests.start : tile.tests.stop, tile.trains.start : tile.trains.stop]
        np.testing.assert_array_equal(tile.scores, wanted)
    x, y = random.normal(size=(len(part), 2)), random.normal(size=(n_test, 2))
    np.testing.assert_allclose(sparse.matmat(x, part), tau[:, part.start :] @ x, atol=1e-4)
    np.testing.assert_allclose(sparse.rmatmat(y, part), tau[:, part.start :].T @ y, atol=1e-4)
    mine, theirs = (top_k(scores, 4)[0] for scores in (sparse, DenseScores([tau])))
    for name, array in vars(theirs).items():
        np.testing.assert_array_equal(getattr(mine, name), array)
