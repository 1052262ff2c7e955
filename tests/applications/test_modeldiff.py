"""ModelDiff: residual directions equal the closed form and the library's own, need no dense matrix,
survive zero rows; and what is within the null is not significant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from sklearn.decomposition import PCA

from engine.applications.modeldiff.residuals import directions, residuals
from engine.applications.modeldiff.significance import LEVEL, Null, holm, p_values
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


def test_nothing_is_significant_without_a_null_or_within_it() -> None:
    gaps = np.array([0.5, 0.02, 0.001, -0.1])
    values = (0.01, 0.012, 0.02, 0.011, 0.015)
    assert np.isnan(p_values(gaps, Null(), True)).all()
    assert np.isnan(p_values(gaps, Null(values, values, 1), True)).all()
    found = p_values(gaps, Null(values, values, 5), True)
    assert found[0] < 0.01
    assert (found[1:] >= LEVEL).all()


def test_p_is_that_of_student_s_prediction_interval() -> None:
    """With logarithms 1, 2, 3 and 5, 6, 4: a mean of 2, variances of 1, and a correlation of −½."""
    null = Null(tuple(np.exp([1.0, 2, 3])), tuple(np.exp([5.0, 6, 4])), 3)
    for independent, count in ((3.0, 3), (2.0, 2), (20.0, 3)):
        null = Null(null.a, null.b, independent)
        t = (5 - 2) / (1 + 1 / count) ** 0.5
        found = p_values(np.array([np.exp(5.0)]), null, True)[0]
        assert found == pytest.approx(2 * student.sf(t, 2 * (count - 1) / 1.25))


def test_each_side_has_its_own_null_and_few_independent_pairs_count_for_less() -> None:
    low, high = (0.01, 0.012, 0.009, 0.011, 0.01), (0.1, 0.12, 0.09, 0.11, 0.1)
    gaps = np.array([0.05])
    assert p_values(gaps, Null(low, high, 5), True)[0] < 0.01
    assert p_values(gaps, Null(low, high, 5), False)[0] >= LEVEL
    few, many = (p_values(gaps, Null(low, high, count), True)[0] for count in (2, 5))
    assert few > 3 * many


def test_null_values_that_are_not_positive_make_the_test_careful() -> None:
    null = Null((0.01, -0.02, 0.0, 0.012), (0.01, 0.01, 0.011, 0.012), 4)
    found = p_values(np.array([0.013, 0.02]), null, True)
    assert (found >= LEVEL).all()
    nothing = p_values(np.array([-1.0, 0.0]), Null((-1.0, -2.0), (-1.0, -2.0), 2), True)
    assert (nothing == 1).all()
