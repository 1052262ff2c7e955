"""Datamodels: the lasso path against scikit-learn, planted truths, and what must be refused."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from engine.attribution.datamodels.fit import Datamodels, fit_datamodels
from engine.attribution.datamodels.lasso import CoordinateDescent, ProximalGradient, standardize
from engine.store.errors import DataError

SOLVERS = {
    "descent": lambda masks: CoordinateDescent(masks, threads=2),
    "proximal": lambda masks: ProximalGradient(masks, "cpu"),
}


def runs(m=160, n=60, targets=5, alpha=0.5, nonzeros=6, noise=0.3, seed=0):
    """Masks, outputs that are sparse linear maps of them plus noise, and the planted maps."""
    rng = np.random.default_rng(seed)
    masks = rng.random((m, n)) < alpha
    planted = np.zeros((targets, n))
    for row in planted:
        row[rng.choice(n, nonzeros, replace=False)] = rng.choice([-1, 1], nonzeros)
    outputs = 3 + masks @ planted.T + noise * rng.normal(size=(m, targets))
    return masks, outputs.astype(np.float32), planted


def centred(outputs):
    return np.ascontiguousarray((outputs - outputs.mean(0)).T, dtype=np.float32)


def reference(masks, outputs, penalty):
    """scikit-learn's weights in units of the raw masks, and its bias: one target at a time."""
    columns, mean, scale = standardize(masks)
    weights = []
    for target, bound in zip(outputs.T.astype(float), penalty, strict=True):
        model = Lasso(alpha=bound, tol=1e-10, max_iter=100_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(columns.T.astype(float), target)
        weights.append(model.coef_ * scale)
    weights = np.array(weights)
    return weights, outputs.mean(0) - weights @ mean


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("m", "n"), [(160, 60), (60, 160), (65, 64)])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_weights_are_scikit_learns_at_every_step_of_the_path(solver, m, n, alpha):
    masks, outputs, _ = runs(m, n, alpha=alpha)
    path = SOLVERS[solver](masks)
    largest = path.begin(centred(outputs))
    every = np.arange(outputs.shape[1])
    for ratio in (0.7, 0.3, 0.1):
        path.solve(ratio * largest, every)
        wanted, _ = reference(masks, outputs, ratio * largest)
        np.testing.assert_allclose(path.weights(every) * path.scale, wanted, atol=1e-4)
        assert path.gap(ratio * largest).max() < 1e-4


@pytest.mark.parametrize("solver", SOLVERS)
def test_all_weights_are_zero_at_lambda_max_and_one_is_not_just_below(solver):
    masks, outputs, _ = runs()
    path = SOLVERS[solver](masks)
    largest = path.begin(centred(outputs))
    every = np.arange(outputs.shape[1])
    path.solve(largest, every)
    assert not path.weights(every).any()
    path.solve(0.999 * largest, every)
    np.testing.assert_array_equal((path.weights(every) != 0).sum(1), 1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_columns_that_are_the_same_share_a_weight_between_them(solver):
    masks, outputs, _ = runs()
    doubled = np.hstack([masks, masks[:, :10]])
    every = np.arange(outputs.shape[1])
    found = []
    for columns in (masks, doubled):
        path = SOLVERS[solver](columns)
        path.solve(0.2 * path.begin(centred(outputs)), every)
        found.append(path.weights(every))
    alone, shared = found
    np.testing.assert_allclose(shared[:, :10] + shared[:, 60:], alone[:, :10], atol=1e-4)
    np.testing.assert_allclose(shared[:, 10:60], alone[:, 10:], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(8, 70),
    st.integers(1, 70),
    st.floats(0.05, 0.95),
    st.floats(0.05, 0.99),
    st.integers(0, 2**31),
)
def test_no_condition_of_optimality_is_broken(m, n, alpha, ratio, seed):
    """|g_j| ≤ λ, and g_j = λ sign(w_j) where w_j ≠ 0, from the definitions; whatever the masks."""
    masks, outputs, _ = runs(m, n, 3, alpha, nonzeros=1, seed=seed)
    columns, _, _ = standardize(masks)
    for make in SOLVERS.values():
        path = make(masks)
        largest = path.begin(centred(outputs))
        every = np.arange(3)
        path.solve(ratio * largest, every)
        w = path.weights(every).astype(float)
        gradient = (centred(outputs) - w @ columns) @ columns.T / m
        bound = (ratio * largest)[:, None]
        slack = 1e-4 * largest.max() + 1e-7
        assert (np.abs(gradient) <= bound + slack).all()
        assert (np.abs(gradient - bound * np.sign(w))[w != 0] <= slack).all()


# --- choice of λ, refit, result -------------------------------------------------------------------


def fitted(masks, outputs, **options):
    held_out = np.arange(len(masks)) % 4 == 3
    return fit_datamodels(masks, outputs, held_out, **options), held_out


@pytest.mark.parametrize("patience", [None, 3])
def test_lambda_is_the_best_on_held_out_runs_and_the_refit_is_on_all(patience):
    masks, outputs, _ = runs(noise=2.0)
    found, held_out = fitted(masks, outputs, lambdas=12, patience=patience)
    ratios = np.geomspace(1, 0.1, 12)
    errors = []
    for ratio in ratios:
        weights, bias = reference(masks[~held_out], outputs[~held_out], ratio * found.penalty_max)
        errors.append(((masks[held_out] @ weights.T + bias - outputs[held_out]) ** 2).mean(0))
    np.testing.assert_allclose(
        found.penalty, ratios[np.argmin(errors, axis=0)] * found.penalty_max, rtol=1e-5
    )
    weights, bias = reference(masks, outputs, found.penalty)
    np.testing.assert_allclose(found.rows(np.arange(5)), weights, atol=1e-4)
    np.testing.assert_allclose(found.bias, bias, atol=1e-3)
    np.testing.assert_allclose(
        found.r2, 1 - np.min(errors, axis=0) / outputs[held_out].var(0), atol=1e-3
    )
    assert found.gap.max() < 1e-4


def test_planted_sparse_truth_is_recovered():
    masks, outputs, planted = runs(m=400, n=120, noise=0.2)
    found, _ = fitted(masks, outputs, lambda_min_ratio=0.01)
    weights = found.rows(np.arange(len(planted)))
    np.testing.assert_allclose(weights, planted, atol=0.15)
    largest = np.argsort(-np.abs(weights), axis=1)[:, :6]
    assert all(planted[row, columns].all() for row, columns in enumerate(largest))
    assert (found.correlation > 0.98).all()
    assert (found.r2 > 0.95).all()


def test_prediction_is_bias_and_the_weights_of_what_is_there():
    masks, outputs, _ = runs()
    found, _ = fitted(masks, outputs)
    wanted = masks @ found.rows(np.arange(5)).T + found.bias
    np.testing.assert_allclose(found.predict(masks), wanted, atol=1e-5)
    assert found.indices.dtype == np.int32
    np.testing.assert_array_equal(found.nonzeros, (found.rows(np.arange(5)) != 0).sum(1))


def test_targets_do_not_depend_on_each_other(monkeypatch):
    masks, outputs, _ = runs(targets=7)
    together, _ = fitted(masks, outputs)
    monkeypatch.setattr("engine.attribution.datamodels.fit.BLOCK_BYTES", 2 * 4 * masks.shape[1])
    apart, _ = fitted(masks, outputs, threads=2)
    np.testing.assert_array_equal(together.indptr, apart.indptr)
    np.testing.assert_array_equal(together.indices, apart.indices)
    np.testing.assert_allclose(together.values, apart.values, atol=1e-5)


def test_the_same_call_gives_the_same_bytes():
    masks, outputs, _ = runs()
    one, two = (fitted(masks, outputs, threads=2)[0] for _ in range(2))
    assert one.values.tobytes() == two.values.tobytes()


def test_torch_gives_what_numba_gives(monkeypatch):
    masks, outputs, _ = runs(m=100, n=140, noise=1.0)
    here, _ = fitted(masks, outputs)
    monkeypatch.setattr(
        "engine.attribution.datamodels.fit._solver",
        lambda masks, *_: ProximalGradient(masks, "cpu"),
    )
    there, _ = fitted(masks, outputs)
    np.testing.assert_allclose(here.penalty, there.penalty, rtol=1e-5)
    every = np.arange(5)
    np.testing.assert_allclose(here.rows(every), there.rows(every), atol=1e-4)


def test_a_constant_target_is_its_bias():
    masks, outputs, _ = runs()
    outputs[:, 2] = 7
    found, _ = fitted(masks, outputs)
    assert found.nonzeros[2] == 0
    assert found.bias[2] == 7
    assert found.r2[2] == found.correlation[2] == found.gap[2] == 0
    assert (np.delete(found.nonzeros, 2) > 0).all()


def test_an_example_in_all_runs_or_in_none_has_no_weight():
    masks, outputs, _ = runs()
    masks[:, 0], masks[:, 1] = True, False
    found, _ = fitted(masks, outputs)
    assert not found.rows(np.arange(5))[:, :2].any()
    assert np.isfinite(found.predict(masks)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, y, h: (m, np.where(np.arange(160)[:, None] == 7, np.nan, y), h), "run 7"),
        (lambda m, y, h: (m, y.T, h), "with the same runs"),
        (lambda m, y, h: (m.astype(float), y, h), "bool"),
        (lambda m, y, h: (m, y, h[:-1]), "held_out"),
        (lambda m, y, h: (m, y, h & False), "160 runs to fit and 0 held out"),
    ],
)
def test_unfit_input_is_refused(change, message):
    masks, outputs, _ = runs()
    with pytest.raises(DataError, match=message):
        fit_datamodels(*change(masks, outputs, np.arange(160) % 4 == 3))


def test_reading_datamodels_imports_neither_numba_nor_torch():
    script = (
        "import sys, engine.attribution.datamodels.fit\n"
        "assert not {'numba', 'torch'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_result_is_a_plain_value():
    masks, outputs, _ = runs()
    found, _ = fitted(masks, outputs)
    assert isinstance(found, Datamodels)
    for name in ("penalty", "penalty_max", "r2", "correlation", "gap", "bias", "values"):
        assert getattr(found, name).dtype == np.float32
