"""ModelDiff: residual directions equal the closed form and the library's own, need no dense matrix,
survive zero rows; and two halves of one algorithm do not differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from engine.applications.modeldiff.residuals import directions, residuals
from engine.applications.modeldiff.significance import (
    LEVEL,
    Null,
    holm,
    p_values,
    split_checkpoints,
)
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores


def pair(n_test: int = 60, n_train: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two related score matrices with a few strong directions each."""
    rng = np.random.default_rng(seed)
    shared, own = (
        rng.standard_normal((n_test, 6)) * [9, 7, 5, 4, 3, 2] @ rng.standard_normal((6, n_train))
        for _ in range(2)
    )
    noise = rng.standard_normal((2, n_test, n_train))
    return (shared + 0.5 * own + noise[0]).astype("f"), (shared + noise[1]).astype("f")


def dense(a: np.ndarray, b: np.ndarray, normalise: bool, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(variances, directions) in float64, by the formula."""
    a, b = a.astype("d"), b.astype("d")
    if normalise:
        a = a / np.linalg.norm(a, axis=1, keepdims=True).clip(1e-300)
    rest = a - ((a * b).sum(1) / (b * b).sum(1).clip(1e-300))[:, None] * b
    rest -= rest.mean(0)
    _, values, vectors = np.linalg.svd(rest, full_matrices=False)
    return values[:k] ** 2 / len(a), vectors[:k]


def library(a: np.ndarray, b: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """`residual_pca` of MadryLab/modeldiff (modeldiff/pca.py), line by line, in NumPy."""
    coefficients = np.multiply(a, b).sum(axis=1) / np.multiply(b, b).sum(axis=1)
    pca = PCA(n_components=k)
    projections = pca.fit_transform(a - np.multiply(coefficients.reshape(-1, 1), b))

    def variance(x: np.ndarray) -> np.ndarray:
        x = x / np.linalg.norm(x, axis=1)[:, None]
        x = x - x.mean(axis=0)
        along = x @ pca.components_.T
        return np.multiply(along, along).sum(axis=0) / len(x)

    return {
        "directions": pca.components_,
        "projections": projections,
        "a": variance(a),
        "b": variance(b),
    }


@pytest.mark.parametrize("normalise", [True, False])
def test_directions_equal_the_closed_form(normalise: bool) -> None:
    a, b = pair()
    found = directions(residuals(DenseScores([a]), DenseScores([b]), normalise), 5)
    variances, vectors = dense(a, b, normalise, 5)
    np.testing.assert_allclose(found.variance, variances, rtol=1e-4)
    np.testing.assert_allclose(np.abs((found.weights * vectors).sum(1)), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.weights, axis=1), 1, atol=1e-5)


def test_the_library_s_own_figures_come_out_in_its_convention() -> None:
    a, b = pair()
    theirs = library(a, b, 5)
    found = directions(residuals(DenseScores([a]), DenseScores([b]), normalise=False), 5)
    signs = np.sign((found.weights * theirs["directions"]).sum(1))
    np.testing.assert_allclose(found.weights * signs[:, None], theirs["directions"], atol=1e-4)
    np.testing.assert_allclose(found.variance_a, theirs["a"], rtol=1e-4)
    np.testing.assert_allclose(found.variance_b, theirs["b"], rtol=1e-4)
    scale = np.abs(theirs["projections"]).max()
    np.testing.assert_allclose(found.projections * signs, theirs["projections"], atol=1e-4 * scale)


def test_our_convention_is_another_where_rows_differ_in_length() -> None:
    a, b = pair()
    a[0] = 1000 * np.random.default_rng(5).standard_normal(90)
    theirs = library(a, b, 1)["directions"][0]
    ours = directions(residuals(DenseScores([a]), DenseScores([b])), 1).weights[0]
    assert abs(theirs @ a[0]) / np.linalg.norm(a[0]) > 0.9  # one test example decides it
    assert abs(theirs @ ours) < 0.5


def test_from_factors_as_from_the_whole_matrix() -> None:
    rng = np.random.default_rng(1)
    sides = []
    for _ in range(2):
        features = [rng.standard_normal((90, 12)).astype("f") for _ in range(2)]
        factors = [rng.standard_normal((60, 12)).astype("f") for _ in range(2)]
        weights = rng.random(90).astype("f")
        threshold = np.full(60, 0.5, np.float32)
        shards = [[phi[:50], phi[50:]] for phi in features]
        sides.append(FactorScores(shards, factors, weights, threshold))
    whole = [
        DenseScores(
            [
                sum(g @ np.concatenate(f).T for g, f in zip(s.factors, s.features, strict=True))
                / 2
                * s.out_to_loss
            ]
        )
        for s in sides
    ]
    found, wanted = directions(residuals(*sides), 4), directions(residuals(*whole), 4)
    np.testing.assert_allclose(found.variance, wanted.variance, rtol=1e-4)
    np.testing.assert_allclose(found.variance_b, wanted.variance_b, rtol=1e-3)
    np.testing.assert_allclose((found.weights * wanted.weights).sum(1), 1, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(zero_a=st.sets(st.integers(0, 19)), zero_b=st.sets(st.integers(0, 19)), same=st.booleans())
def test_zero_rows_and_equal_scores_give_no_nan(
    zero_a: set[int], zero_b: set[int], same: bool
) -> None:
    a, b = pair(20, 30)
    b = a.copy() if same else b
    a[sorted(zero_a)] = 0
    b[sorted(zero_b)] = 0
    found = directions(residuals(DenseScores([a]), DenseScores([b])), 3)
    for name, array in vars(found).items():
        assert np.isfinite(array).all(), name


def test_an_own_direction_is_found_and_what_is_shared_is_not() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal((2, 90))
    a = np.outer(rng.standard_normal(80), shared) + 0.1 * rng.standard_normal((80, 90))
    b = a + 0.1 * rng.standard_normal((80, 90))
    a[:20] += own
    found = directions(residuals(DenseScores([a.astype("f")]), DenseScores([b.astype("f")])), 3)
    assert abs(found.weights[0] @ own) / np.linalg.norm(own) > 0.9
    assert set(np.argsort(-np.abs(found.projections[:, 0]))[:20]) == set(range(20))
    assert (found.weights**3).sum(axis=1).min() > 0
    assert found.variance_a[0] > 5 * found.variance_b[0]
    assert found.stability[0] > 0.95
    assert found.stability[0] > found.stability[2]


# --- significance --------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_s_correction(p: list[float]) -> None:
    adjusted = holm(p)
    order = sorted(range(len(p)), key=lambda place: p[place])
    worst = 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[place]))
        assert adjusted[place] == pytest.approx(worst)


def test_checkpoints_are_split_in_different_ways_and_each_split_comes_once() -> None:
    assert split_checkpoints(1, 1) == []
    assert split_checkpoints(2, 2) == [((1,), (0,))]
    assert len(split_checkpoints(4, 2)) == 3
    assert len(split_checkpoints(5, 1)) == 5
    of_many = split_checkpoints(40, 20)
    assert len({first for first, _ in of_many}) == 10
    shared = set.intersection(*({*first} for first, _ in of_many))
    assert len(shared) < 3  # drawn from all 137 billion splits, not from the first of a list
    many = split_checkpoints(12, 6)
    assert len({frozenset((frozenset(a), frozenset(b))) for a, b in many}) == len(many) == 10
    for larger, smaller in many:
        assert sorted(larger + smaller) == list(range(12))


def test_nothing_is_significant_without_a_null_or_within_it() -> None:
    gaps = np.array([0.5, 0.02, 0.001, -0.1])
    assert np.isnan(p_values(gaps, Null((0.01, 0.02)))).all()
    found = p_values(gaps, Null((0.01, 0.012, 0.02, 0.011, 0.015)))
    assert found[0] < 0.01
    assert (found[1:] >= LEVEL).all()


def checkpoints(count: int, seed: int, own: float = 0.0) -> list[np.ndarray]:
    """Scores of single checkpoints: what all share, noise with structure, perhaps a direction."""
    rng = np.random.default_rng(99)
    base = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 80))
    direction = rng.standard_normal(80)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        noise = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 80))
        scores = base + noise + rng.standard_normal((60, 80))
        scores[:15] += own * direction
        found.append(scores.astype("f"))
    return found


def mean(parts: list[np.ndarray], chosen: tuple[int, ...] | None = None) -> DenseScores:
    return DenseScores([np.mean([parts[m] for m in chosen or range(len(parts))], axis=0)])


def p_of(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The smallest p of A∖B, as `engine.applications.modeldiff.comparison` judges it."""

    def largest(one: DenseScores, other: DenseScores) -> np.ndarray:
        return directions(residuals(one, other), 5, tolerance=1e-3).distinguishing

    worst = 0.0
    for parts in (a, b):
        splits = split_checkpoints(len(parts), min(len(a), len(b)))
        values = [largest(mean(parts, m), mean(parts, n)).max() for m, n in splits]
        null = Null(tuple(float(value) for value in values))
        if null.known:
            worst = max(worst, float(p_values(largest(mean(a), mean(b)), null).min()))
    return worst


def test_halves_of_one_algorithm_are_not_significant_and_a_planted_direction_is() -> None:
    false = [p_of(checkpoints(5, seed), checkpoints(5, 100 + seed)) < LEVEL for seed in range(20)]
    assert np.mean(false) <= 0.05
    found = [p_of(checkpoints(5, seed, own=4.0), checkpoints(5, 100 + seed)) for seed in range(5)]
    assert max(found) < LEVEL
