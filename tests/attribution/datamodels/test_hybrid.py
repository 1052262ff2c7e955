"""TRAK as a prior, against the p × p formula of Bayesian linear regression and a planted truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.attribution.datamodels.hybrid import (
    Settings,
    change_deviation,
    choose,
    fit,
    output_units,
)
from engine.attribution.evaluation.lds import spearman
from engine.store.errors import DataError

SETTINGS = Settings(ridge=1.0, flat=0.3, noise=0.2)


def problem(m: int, n: int, t: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """(τ `[t, n]`, masks `[m, n]`, outputs `[m, t]`): outputs of weights near τ, with noise."""
    generator = torch.Generator().manual_seed(seed)
    tau = torch.randn(t, n, generator=generator) ** 3
    weights = tau + 0.35 * tau.abs() * torch.randn(t, n, generator=generator)
    masks = torch.rand(m, n, generator=generator) < 0.5
    outputs = masks.float() @ weights.T + 3 + torch.randn(m, t, generator=generator)
    return tau, masks, outputs


def closed_form(
    tau: np.ndarray, masks: np.ndarray, outputs: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weights, predicted, deviation) of one target by inverting the p × p precision, float64."""
    mean_mask = masks.mean(0)
    x, y = masks - mean_mask, outputs - outputs.mean()
    v = tau**2 + SETTINGS.flat * (tau**2).mean()
    noise = SETTINGS.noise * np.diagonal((x * v) @ x.T).mean()
    covariance = np.linalg.inv(np.diag(1 / v) + x.T @ x / noise)
    weights = covariance @ (tau / v + x.T @ y / noise)
    residual = y - x @ tau
    scale = residual @ np.linalg.solve((x * v) @ x.T + noise * np.eye(len(x)), residual)
    scale /= len(x) - 1
    z = new - mean_mask
    spread = np.einsum("kn,nm,km->k", z, covariance, z)
    return weights, outputs.mean() + z @ weights, np.sqrt(scale * (spread + noise))


def test_it_is_bayesian_linear_regression() -> None:
    tau, masks, outputs = problem(m=30, n=50, t=4)
    new = torch.rand(7, 50, generator=torch.Generator().manual_seed(9)) < 0.5
    found = fit(tau, masks, outputs, SETTINGS, new)
    for row in range(4):
        arrays = (tau[row], masks, outputs[:, row], new)
        wanted = closed_form(*(array.double().numpy() for array in arrays))
        names = ("weights", "predicted", "deviation")
        for name, values in zip(names, wanted, strict=True):
            np.testing.assert_allclose(getattr(found, name)[row], values, rtol=2e-3, atol=2e-3)
        predicted = found.bias[row] + masks.float() @ found.weights[row]
        assert (predicted - outputs[:, row]).abs().mean() < 3 * outputs[:, row].std()


def test_with_uninformative_runs_it_is_trak_and_with_many_runs_the_truth() -> None:
    tau, masks, outputs = problem(m=2000, n=40, t=3)
    stiff = fit(tau, masks, outputs, replace(SETTINGS, noise=1e6))
    torch.testing.assert_close(stiff.weights, tau, rtol=1e-3, atol=1e-3)
    free = fit(tau, masks, outputs, replace(SETTINGS, noise=1e-4))
    x = masks.double() - masks.double().mean(0)
    y = outputs.double() - outputs.double().mean(0)
    least_squares = torch.linalg.lstsq(x, y).solution.T
    torch.testing.assert_close(free.weights.double(), least_squares, rtol=2e-2, atol=2e-2)


def test_without_attributions_it_is_ridge_regression() -> None:
    tau, masks, outputs = problem(m=30, n=50, t=2)
    found = fit(0 * tau, masks, outputs, SETTINGS)
    x = masks.double() - masks.double().mean(0)
    gram = x @ x.T
    noise = SETTINGS.noise * gram.diagonal().mean()
    y = outputs.double() - outputs.double().mean(0)
    wanted = (x.T @ torch.linalg.solve(gram + noise * torch.eye(30), y)).T
    torch.testing.assert_close(found.weights.double(), wanted, rtol=1e-3, atol=1e-3)


def test_a_few_runs_improve_on_trak_and_the_best_settings_are_chosen() -> None:
    tau, masks, outputs = problem(m=400, n=300, t=20)
    fitted, validation, test = (slice(0, 100), slice(100, 200), slice(200, 400))
    choice = choose(tau / 7, masks[fitted], outputs[fitted], masks[validation], outputs[validation])
    settings = choice.settings
    best = max(choice.trials, key=lambda trial: trial.lds)
    assert best.settings == replace(settings, width=1)
    units = output_units(tau / 7, masks[fitted], outputs[fitted], settings.ridge)
    found = fit(tau / 7 * units, masks[fitted], outputs[fitted], settings, masks[test])
    actual = outputs[test].T.numpy().copy()

    def lds(weights: torch.Tensor) -> float:
        return float(spearman((weights @ masks[test].float().T).numpy(), actual).mean())

    assert lds(found.weights) > lds(tau) + 0.01
    centred = masks[fitted].float() - 0.5
    ridge = torch.linalg.solve(centred @ centred.T + 30 * torch.eye(100), outputs[fitted] - 3)
    assert lds(found.weights) > lds((centred.T @ ridge).T) + 0.2
    inside = (outputs[test].T - found.predicted).abs() < 1.645 * found.deviation
    assert 0.85 < inside.float().mean() < 0.95


# --- output units --------------------------------------------------------------------------------


def test_units_are_the_ridge_regression_of_all_targets_together() -> None:
    """Against the n × n normal equations, written out target by target in float64."""
    tau, masks, outputs = problem(m=25, n=30, t=6)
    found = output_units(tau, masks, outputs, ridge=0.7)
    x = (masks.double() - masks.double().mean(0)).numpy()
    y = (outputs.double() - outputs.double().mean(0)).numpy()
    designs = [x * row / y[:, target].std(ddof=1) for target, row in enumerate(tau.numpy())]
    targets = [column / column.std(ddof=1) for column in y.T]
    whole, wanted = np.concatenate(designs), np.concatenate(targets)
    slope = (whole.sum(1) @ wanted) / (whole.sum(1) @ whole.sum(1))
    curvature = slope**2 * whole.T @ whole
    held = 0.7 * np.diagonal(curvature).mean() * np.eye(30)
    left = slope * whole.T @ (wanted - slope * whole.sum(1))
    np.testing.assert_allclose(
        found, slope * (1 + np.linalg.solve(curvature + held, left)), rtol=2e-3
    )


def test_planted_factors_of_training_examples_are_found() -> None:
    generator = torch.Generator().manual_seed(1)
    tau = torch.randn(200, 50, generator=generator)
    factors = 3 * (0.5 + torch.rand(50, generator=generator))
    masks = torch.rand(40, 50, generator=generator) < 0.5
    outputs = masks.float() @ (tau * factors).T + torch.randn(40, 200, generator=generator)
    torch.testing.assert_close(
        output_units(tau, masks, outputs, ridge=0.01), factors, rtol=0.1, atol=0.1
    )
    stiff = output_units(tau, masks, outputs, ridge=1e6)
    torch.testing.assert_close(stiff, stiff.mean().expand(50))
    assert stiff[0] == pytest.approx(3, rel=0.1)


def test_units_do_not_depend_on_the_scale_of_an_output_or_on_constant_ones() -> None:
    tau, masks, outputs = problem(m=25, n=30, t=6)
    wanted = output_units(tau, masks, outputs, ridge=1.0)
    constant = torch.cat([outputs, torch.full((25, 1), 0.1)], dim=1)
    found = output_units(torch.cat([tau, 9 * tau[:1]]), masks, constant, ridge=1.0)
    torch.testing.assert_close(found, wanted)
    grown = torch.tensor([1.0, 5, 1, 1, 1, 1])
    found = output_units(grown[:, None] * tau, masks, grown * outputs, ridge=1.0)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


# --- removals, bad input -------------------------------------------------------------------------


def test_the_change_of_a_removal_has_a_standard_deviation() -> None:
    tau, masks, outputs = problem(m=60, n=30, t=2)
    change = torch.zeros(30)
    change[[3, 5]] = -1
    mean, deviation = change_deviation(tau, masks, outputs, SETTINGS, change)
    found = fit(tau, masks, outputs, SETTINGS)
    torch.testing.assert_close(mean, found.weights @ change, rtol=1e-4, atol=1e-4)
    assert (deviation > 0).all()
    more = torch.zeros(30)
    more[:10] = -1
    assert (change_deviation(tau, masks, outputs, SETTINGS, more)[1] > deviation).all()


def test_scores_that_point_the_wrong_way_and_constant_outputs() -> None:
    tau, masks, outputs = problem(m=30, n=20, t=2)
    assert (output_units(-tau, masks, outputs, SETTINGS.ridge) == 0).all()
    outputs[:, 1] = 4
    found = fit(tau, masks, outputs, SETTINGS, masks[:2])
    assert torch.isfinite(found.weights).all()
    torch.testing.assert_close(
        found.predicted[0], found.bias[0] + masks[:2].float() @ found.weights[0]
    )


def test_bad_runs_are_refused() -> None:
    tau, masks, outputs = problem(m=30, n=20, t=2)
    with pytest.raises(DataError, match="three subset runs or more; there are 2"):
        fit(tau, masks[:2], outputs[:2], SETTINGS)
    outputs[3, 0] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        fit(tau, masks, outputs, SETTINGS)
