"""The preferred method: one statistic for all, 0 on noise, and the simplest of the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.attribution.datamodels.fit import fit_datamodels
from engine.attribution.datamodels.hybrid import choose
from engine.attribution.evaluation.preference import (
    Validation,
    halves,
    prefer,
    validation_lds,
)
from engine.attribution.trak.linear_system import temper
from engine.attribution.trak.solver import Solver
from engine.attribution.trak.tuning import attribute_by_features, soft_threshold, tune

N_TRAIN, TARGETS = 120, 40
Fitted = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Validation]


def by_lasso(
    tau: np.ndarray, masks: np.ndarray, outputs: np.ndarray, held: np.ndarray
) -> Validation:
    return Validation(fit_datamodels(masks, outputs, held).cross_fitted)


def by_hybrid(
    tau: np.ndarray, masks: np.ndarray, outputs: np.ndarray, held: np.ndarray
) -> Validation:
    runs = [masks[~held], outputs[~held], masks[held], outputs[held]]
    return Validation(choose(*map(torch.from_numpy, (tau, *runs))).cross_fitted)


def by_tuned_trak(
    tau: np.ndarray, masks: np.ndarray, outputs: np.ndarray, held: np.ndarray
) -> Validation:
    """TRAK of random features, with the settings that the held-out runs like best."""
    generator = np.random.default_rng(len(masks))
    features = generator.normal(size=(N_TRAIN + TARGETS, 30)).astype(np.float32)
    q = torch.from_numpy(generator.uniform(0.01, 1, N_TRAIN).astype(np.float32))
    train, test = map(torch.from_numpy, (features[:N_TRAIN], features[N_TRAIN:]))
    attribute = attribute_by_features(train, test, q)
    start = Solver("primal", 30, 30, 1.0, "", 1.0, "plain")
    found = tune(attribute, start, q, masks[held], outputs[held])
    raw = attribute(found.solver) * temper(q, found.solver)
    scores = soft_threshold(raw, found.solver.soft_threshold).numpy()
    return Validation(scores @ masks[held].T.astype(np.float32), found.optimism)


@pytest.mark.parametrize("fitted", [by_lasso, by_hybrid, by_tuned_trak])
@pytest.mark.parametrize("runs", [40, 100])
def test_on_noise_no_method_seems_to_predict(fitted: Fitted, runs: int) -> None:
    """Without cross-fitting the lasso's mean is .21 and .12 here."""
    found = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        masks = generator.random((runs, N_TRAIN)) < 0.5
        outputs = generator.normal(size=(runs, TARGETS)).astype(np.float32)
        tau = generator.normal(size=(TARGETS, N_TRAIN)).astype(np.float32)
        held = np.arange(runs) % 4 == 3
        validation = fitted(tau, masks, outputs, held)
        found.append(validation_lds(validation, np.ascontiguousarray(outputs[held].T)))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < max(0.02, 3 * error)
    assert error < 0.03


def test_a_signal_is_found_by_cross_fitting_too() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((400, 30)) < 0.5
    weights = generator.normal(size=(30, 10))
    outputs = (masks @ weights + 0.5 * generator.normal(size=(400, 10))).astype(np.float32)
    held = np.arange(400) % 4 == 3
    found = fit_datamodels(masks, outputs, held)
    actual = np.ascontiguousarray(outputs[held].T)
    assert validation_lds(Validation(found.cross_fitted), actual) > 0.9
    # Each half is predicted with one of the path's fits to the other runs: near the best one.
    assert np.corrcoef(found.cross_fitted.ravel(), actual.ravel())[0, 1] > 0.9


def noisy(actual: np.ndarray, noise: float, seed: int) -> Validation:
    generator = np.random.default_rng(seed)
    return Validation(actual + noise * generator.normal(size=actual.shape))


def test_the_simplest_within_a_standard_error_is_preferred() -> None:
    actual = np.random.default_rng(0).normal(size=(50, 40))
    good, equal, bad = noisy(actual, 1, 1), noisy(actual, 1, 2), noisy(actual, 20, 3)
    assert prefer({"simple": good, "complex": equal}, actual) == "simple"
    assert prefer({"simple": equal, "complex": good}, actual) == "simple"
    assert prefer({"simple": bad, "complex": good}, actual) == "complex"
    assert prefer({"simple": bad, "middle": equal, "complex": good}, actual) == "middle"
    assert prefer({"simple": replace(good, optimism=0.5), "complex": equal}, actual) == "complex"


def test_equal_methods_rarely_displace_the_simple_one() -> None:
    """Of two equally good methods the one-standard-error rule takes the complex one in 16 %."""
    displaced = 0
    for seed in range(60):
        actual = np.random.default_rng(seed).normal(size=(20, 16))
        pair = {"simple": noisy(actual, 2, 2 * seed), "complex": noisy(actual, 2, 2 * seed + 1)}
        displaced += prefer(pair, actual) == "complex"
    assert displaced / 60 < 0.3


@pytest.mark.parametrize(("runs", "sizes"), [(3, None), (4, (2, 2)), (7, (4, 3)), (20, (10, 10))])
def test_halves(runs: int, sizes: tuple[int, int] | None) -> None:
    found = halves(runs)
    assert (found and tuple(int(half.sum()) for half in found)) == sizes
    if found:
        assert not (found[0] & found[1]).any()


def test_with_too_few_runs_the_simplest_method_is_preferred() -> None:
    actual = np.random.default_rng(0).normal(size=(9, 3))
    assert prefer({"simple": noisy(actual, 50, 1), "complex": noisy(actual, 0, 2)}, actual) == (
        "simple"
    )
