"""The attribution space, its index, and queries of both signs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.row_shards import RowShards
from engine.attribution.scores.strongest import TopK
from engine.attribution.scores.top_k import top_k
from engine.attribution.search.attribution_space import attribution_space
from engine.attribution.search.vector_index import (
    build_index,
    choose_index,
    index_from_array,
    index_to_array,
    measure_recall,
    recall_at_k,
    search,
)
from engine.store.errors import StoreError

N_TRAIN, N_TEST = 600, 50
KINDS = ["flat", "ivf", "sq", "pq"]


def planted(rank: int, seed: int = 0) -> np.ndarray:
    """A matrix of exactly this rank, rows of very different lengths."""
    rng = np.random.default_rng(seed)
    tau = rng.standard_normal((N_TEST, rank)) @ rng.standard_normal((rank, N_TRAIN))
    return (tau * np.geomspace(0.01, 100, N_TEST)[:, None]).astype(np.float32)


def vectors_of(scores, rank, **options):
    space = attribution_space(scores, rank, seed=1, **options)
    return space, RowShards.of([space.train_vectors(scores, range(scores.n_train))])


@pytest.mark.parametrize("memory_bytes", [2**28, 10_000])
def test_a_planted_rank_is_recovered(memory_bytes):
    tau = planted(6)
    space, train = vectors_of(DenseScores([tau[:20], tau[20:]]), 6, memory_bytes=memory_bytes)
    rebuilt = (space.test_vectors() @ train.parts[0].T) * space.row_norms[:, None]
    assert np.linalg.norm(rebuilt - tau, axis=1).max() < 1e-3 * np.linalg.norm(tau, axis=1).max()
    np.testing.assert_allclose(space.left.T @ space.left, np.eye(6), atol=1e-4)
    np.testing.assert_allclose(
        space.row_norms, np.linalg.norm(tau, axis=1), rtol=0.6
    )  # estimates, only to bring rows to one scale
    scaled = tau / space.row_norms[:, None]
    np.testing.assert_allclose(
        space.singular_values, np.linalg.svd(scaled, compute_uv=False)[:6], rtol=1e-3
    )


def test_truncation_is_about_as_good_as_the_best():
    tau = np.random.default_rng(0).standard_normal((N_TEST, N_TRAIN)).astype(np.float32)
    tau = (tau * np.geomspace(1, 0.01, N_TRAIN)).astype(np.float32)
    space, train = vectors_of(DenseScores([tau]), 20)
    scaled = tau / space.row_norms[:, None]
    best = np.sqrt((np.linalg.svd(scaled, compute_uv=False)[20:] ** 2).sum())
    assert np.linalg.norm(space.test_vectors() @ train.parts[0].T - scaled) < 1.03 * best


def test_factors_and_dense_scores_span_the_same_space():
    rng = np.random.default_rng(0)
    phi, g = rng.standard_normal((N_TRAIN, 8), dtype="f4"), rng.random((N_TEST, 8), dtype="f4")
    q = rng.random(N_TRAIN, dtype="f4")
    tau = q * (g @ phi.T)
    for scores in (FactorScores([[phi]], [g], q), DenseScores([tau])):
        space, train = vectors_of(scores, 8)
        rebuilt = (space.test_vectors() @ train.parts[0].T) * space.row_norms[:, None]
        np.testing.assert_allclose(rebuilt, tau, atol=1e-3)


def test_seed_decides_everything():
    scores = DenseScores([np.random.default_rng(0).random((N_TEST, N_TRAIN), dtype="f4")])
    first, again, other = (attribution_space(scores, 9, seed) for seed in (1, 1, 2))
    assert first.left.tobytes() == again.left.tobytes() != other.left.tobytes()


def test_scores_of_zero_are_handled():
    space, train = vectors_of(DenseScores([np.zeros((4, 10), np.float32)]), 3)
    assert np.isfinite(space.test_vectors()).all()
    assert np.isfinite(train.parts[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_recall_reaches_the_goal_and_scores_are_exact(kind):
    tau = planted(16)
    scores = DenseScores([tau], np.geomspace(0.001, 10, N_TEST).astype(np.float32))
    space, train = vectors_of(scores, 16)
    index = build_index(train, kind, seed=0)
    tests = np.arange(0, N_TEST, 3)
    truth = TopK(*(getattr(top_k(scores, 7)[0], n)[tests] for n in TopK.__dataclass_fields__))
    exact = partial(scores.pairs, tests)
    queries = space.test_vectors()[tests]
    measured = measure_recall(index, queries, exact, truth)
    assert measured.recall >= 0.99
    assert measured.recall == measured.table[measured.candidates]
    assert (measured.k, measured.queries) == (7, len(tests))
    found = search(index, queries, exact, 7, N_TRAIN)
    np.testing.assert_array_equal(found.support_index[:, 0], truth.support_index[:, 0])
    np.testing.assert_array_equal(found.oppose_score[:, 0], truth.oppose_score[:, 0])


def test_flat_of_full_rank_finds_all_of_both_signs_with_few_candidates():
    tau = np.random.default_rng(5).standard_normal((N_TEST, N_TRAIN)).astype(np.float32)
    scores = DenseScores([tau])
    space, train = vectors_of(scores, N_TEST)
    found = search(
        build_index(train, "flat", 0),
        space.test_vectors(),
        partial(scores.pairs, np.arange(N_TEST)),
        k=10,
        candidates=10,
    )
    truth, _ = top_k(scores, 10)
    assert recall_at_k(found, truth) == 1
    for name in TopK.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(truth, name))
    assert (found.support_score > 0).all()
    assert (found.oppose_score < 0).all()


def test_an_inverted_file_that_finds_too_few_returns_minus_one():
    tau = planted(4)
    space, train = vectors_of(DenseScores([tau]), 4)
    index = build_index(train, "ivf", 0)
    index.nprobe = 1
    exact = partial(DenseScores([tau]).pairs, np.arange(N_TEST))
    found = search(index, space.test_vectors(), exact, 400, 400)
    assert (found.support_index[:, -1] == -1).all()
    assert (found.support_score[found.support_index < 0] == 0).all()


def test_recall_counts_only_existing_scores():
    empty, zero = np.full((1, 2), -1, np.int32), np.zeros((1, 2), np.float32)
    truth = TopK(np.array([[4, 7]], np.int32), zero, np.array([[2, -1]], np.int32), zero)
    found = TopK(np.array([[7, 1]], np.int32), zero, empty, zero)
    assert recall_at_k(found, truth) == pytest.approx(1 / 3)
    assert recall_at_k(found, TopK(empty, zero, empty, zero)) == 1


@pytest.mark.determinism
@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_reproducible_and_round_trips_through_bytes(kind):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N_TRAIN, 12), dtype=np.float32)
    first, again = (
        index_to_array(build_index(RowShards.of(parts), kind, seed=4))
        for parts in ([vectors], [vectors[:7], vectors[7:]])
    )
    assert first.dtype == np.uint8
    assert first.tobytes() == again.tobytes()
    queries = rng.standard_normal((3, 12), dtype=np.float32)
    loaded, built = index_from_array(first), build_index(RowShards.of([vectors]), kind, seed=4)
    np.testing.assert_array_equal(loaded.search(queries, 5)[1], built.search(queries, 5)[1])


def test_broken_bytes_are_refused():
    array = index_to_array(build_index(RowShards.of([np.ones((5, 3), "f4")]), "flat", 0))
    with pytest.raises(StoreError, match="not a complete FAISS index"):
        index_from_array(array[:-9])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 40])
def test_tiny_sets_can_be_indexed(kind, n):
    vectors = np.random.default_rng(0).standard_normal((n, 5), dtype=np.float32)
    assert build_index(RowShards.of([vectors]), kind, 0).ntotal == n


def test_the_index_is_chosen_by_size():
    assert choose_index(5_000, 512)[0] == "flat"
    assert choose_index(1_280_000, 512)[0] == "sq"
    kind, why = choose_index(50_000_000, 512)
    assert kind == "pq"
    assert "50,000,000" in why
