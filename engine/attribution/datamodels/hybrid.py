"""The hybrid: a datamodel with TRAK as its prior.

`output_units` first turns attributions τ into units of the output. It also corrects errors that a
training example's attributions share across all targets, about which the runs tell more than about
any single target. Then for each target, with τ in output units, centered masks X `[m, n]` of subset
runs and centered outputs y:

    w ~ N(τ, g·diag(v)),   v_i = τ_i² + κ · mean τ²,   y = Xw + noise,  noise ~ N(0, g·σ²)

A weight can move far where |τ| is large, and hardly elsewhere. So a few hundred runs are enough
where a datamodel without a prior needs thousands. The posterior mean is

    w = τ + v ⊙ Xᵀa,   (X diag(v) Xᵀ + σ²I) a = y − Xτ,

and g is the scale that makes the residual most likely. This is Bayesian linear regression (Bishop
2006, section 3.3) in its dual form, with an m × m system for each target; DESIGN section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.attribution.evaluation.calibration import NINETY
from engine.attribution.evaluation.lds import spearman
from engine.attribution.evaluation.preference import halves
from engine.store.errors import DataError

RIDGES = (100.0, 10.0, 3.0, 1.0, 0.3)
FLATS = (0.1, 0.3, 1.0)
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


@dataclass(frozen=True)
class Settings:
    """Settings that all targets share.

    Attributes:
        ridge: Of `output_units`.
        flat: κ, the variance that every weight has, relative to the mean of τ².
        noise: σ², relative to the mean of the diagonal of X diag(v) Xᵀ.
        width: Factor on the standard deviations, so that 90 % intervals hold 90 % of the
            validation outcomes. Without it the settings with the best LDS give too wide ones.
    """

    ridge: float
    flat: float
    noise: float
    width: float = 1.0


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and their LDS on the validation runs."""

    settings: Settings
    lds: float


@dataclass(frozen=True)
class Posterior:
    """The fit of t targets.

    Attributes:
        weights: Posterior means `[t, n]`: what training example i adds to the output.
        bias: `[t]`: the predicted output of a model trained on no example.
        predicted: Predicted outputs for the new masks, `[t, k]`.
        deviation: Standard deviation of the output of a single run on each new mask, noise
            included, `[t, k]`.
    """

    weights: Tensor
    bias: Tensor
    predicted: Tensor
    deviation: Tensor


def output_units(tau: Tensor, masks: Tensor, outputs: Tensor, ridge: float) -> Tensor:
    """Factors `[n]` that turn the attributions of each training example into units of the output.

    They are c·(1 + f), with one slope c from scores to outputs and a correction f_i for each
    training example. With centered masks X and outputs y,

        Σ_x ‖y_x − c·X(τ_x ⊙ (1 + f))‖² / var(y_x) + ridge · d · ‖f‖²

    over all targets x is minimized first in c at f = 0, then in f by conjugate gradients, so that
    no n × n matrix is needed. d is the mean curvature of the first term along an f_i. Memory: four
    times that of τ.

    Args:
        tau: Attributions of many targets, float32 `[t, n]`, all in the same unit.
        masks: Of the runs to fit on, `[m, n]`.
        outputs: Of those runs, `[m, t]`.
        ridge: How strongly factors are held at c. It is relative to the evidence of all targets
            together, because their errors are correlated: so it means the same for few and many.

    Raises:
        DataError: Outputs are not finite, or there are fewer than three runs.
    """
    _check(masks, outputs)
    x, _ = _centered(masks)
    varies = outputs.std(dim=0) > 1e-5 * outputs.abs().amax(dim=0)
    outputs = outputs - outputs.mean(dim=0)
    deviation = outputs.std(dim=0)[varies, None]
    tau, left_over = tau[varies] / deviation, outputs.T[varies] / deviation
    explained = tau @ x.T
    along = (explained * left_over).sum() / explained.square().sum().clamp(min=_LEAST)
    # A negative slope would make supporting examples opposing ones; such scores are useless.
    slope = along.clamp(min=0)
    tau, left_over = slope * tau, left_over - slope * explained
    held = ridge * (tau.square().sum(dim=0) @ x.square().sum(dim=0) / x.shape[1])
    if held < _LEAST:
        return slope * tau.new_ones(x.shape[1])

    def curve(factors: Tensor) -> Tensor:
        return (tau * (((tau * factors) @ x.T) @ x)).sum(dim=0) + held * factors

    left = (tau * (left_over @ x)).sum(dim=0)
    found, direction, size = torch.zeros_like(left), left, left @ left
    enough = _TOLERANCE**2 * size
    for _ in range(_MOST_STEPS):
        if size <= enough:
            break
        image = curve(direction)
        step = size / (direction @ image)
        found, left = found + step * direction, left - step * image
        size, before = left @ left, size
        direction = left + size / before * direction
    return slope * (1 + found)


def fit(
    tau: Tensor, masks: Tensor, outputs: Tensor, settings: Settings, new_masks: Tensor | None = None
) -> Posterior:
    """Fit t targets, one after the other; all tensors are on one device.

    Args:
        tau: Attributions times `output_units`, float32 `[t, n]`.
        masks: Of the runs to fit on, `[m, n]`.
        outputs: Of those runs, `[m, t]`.
        settings: From `choose`.
        new_masks: Masks to predict outputs for, `[k, n]`; None for none.

    Raises:
        DataError: Outputs are not finite, or there are fewer than three runs.
    """
    _check(masks, outputs)
    x, mean_mask = _centered(masks)
    new = mean_mask[None, :0].new_zeros(0, x.shape[1]) if new_masks is None else new_masks
    new = new.to(x) - mean_mask
    mean_output = outputs.mean(dim=0)
    residual = (outputs - mean_output).T - tau @ x.T
    m, targets = len(x), len(tau)
    weights = torch.empty_like(tau)
    predicted, deviation = (tau.new_empty(targets, len(new)) for _ in range(2))
    for row in range(targets):
        variance = _variances(tau[row], settings.flat)
        kernel, cross = (x * variance) @ x.T, (new * variance) @ x.T
        noise = settings.noise * kernel.diagonal().mean().clamp(min=_LEAST)
        kernel.diagonal().add_(noise)
        factor = torch.linalg.cholesky(kernel)
        alpha = torch.cholesky_solve(residual[row, :, None], factor)[:, 0]
        weights[row] = tau[row] + variance * (alpha @ x)
        predicted[row] = mean_output[row] + new @ weights[row]
        scale = (residual[row] @ alpha / (m - 1)).clamp(
            min=0
        )  # centering took one degree of freedom
        known = torch.linalg.solve_triangular(factor, cross.T, upper=False).square().sum(dim=0)
        spread = (new.square() @ variance - known).clamp(min=0)
        deviation[row] = settings.width * (scale * (spread + noise)).sqrt()
    bias = mean_output - weights @ mean_mask
    return Posterior(weights, bias, predicted, deviation)


def change_deviation(
    tau: Tensor, masks: Tensor, outputs: Tensor, settings: Settings, change: Tensor
) -> tuple[Tensor, Tensor]:
    """Predicted change of each target when the training set changes.

    Args:
        tau, masks, outputs, settings: As for `fit`.
        change: `[n]`: −1 for each example that is removed, +1 for each that is added.

    Returns:
        (mean `[t]`, standard deviation `[t]`) of the expected output's change.
    """
    x, _ = _centered(masks)
    both = torch.stack([torch.zeros_like(change), change]).to(x) + masks.to(x).mean(dim=0)
    found = fit(tau, masks, outputs, settings, both)
    # At the mean mask the variance is all noise; the excess is the uncertainty of the weights.
    variance = found.deviation[:, 1].square() - found.deviation[:, 0].square()
    return found.predicted[:, 1] - found.predicted[:, 0], variance.clamp(min=0).sqrt()


@dataclass(frozen=True)
class Choice:
    """The outcome of `choose`.

    Attributes:
        settings: With the best LDS on the validation runs.
        trials: All settings that were tried.
        cross_fitted: Predicted outputs of the validation runs, `[t, k]` float32: each half of them
            (`preference.halves`) with the settings that the other half chose. All NaN where they
            are too few to split.
    """

    settings: Settings
    trials: list[Trial]
    cross_fitted: np.ndarray


def choose(
    tau: Tensor,
    masks: Tensor,
    outputs: Tensor,
    validation_masks: Tensor,
    validation_outputs: Tensor,
    ridges: Sequence[float] = RIDGES,
    flats: Sequence[float] = FLATS,
    noises: Sequence[float] = NOISES,
) -> Choice:
    """Choose the settings with the best LDS on the validation runs, for all targets together.

    First the ridge, by the LDS of τ in output units alone; then κ and σ². A few hundred targets are
    enough.

    Args:
        tau: Attributions, float32 `[t, n]`, all in the same unit.
        masks, outputs: As for `fit`.
        validation_masks: Of runs that are not fitted to, `[k, n]`.
        validation_outputs: Their outputs, `[k, t]`.
        ridges, flats, noises: Values to try; noises in ascending order.
    """
    _check(masks, outputs)
    x, mean_mask = _centered(masks)
    new = validation_masks.to(x) - mean_mask
    actual = np.ascontiguousarray(validation_outputs.T.cpu().numpy())
    means = {ridge: tau * output_units(tau, masks, outputs, ridge) for ridge in ridges}
    alone = {ridge: (mean @ new.T).cpu().numpy() for ridge, mean in means.items()}
    predicted: dict[float, dict[Settings, np.ndarray]] = {}

    def best(runs: slice | np.ndarray) -> tuple[Settings, list[Trial], np.ndarray]:
        """The best settings by the LDS on some of the runs, with their predictions for all."""

        def lds(found: np.ndarray) -> float:
            return float(spearman(found[:, runs], actual[:, runs]).mean())

        ridge = max(ridges, key=lambda ridge: lds(alone[ridge]))
        if ridge not in predicted:
            residual = (outputs - outputs.mean(dim=0)).T - means[ridge] @ x.T
            predicted[ridge] = {
                Settings(ridge, *key): found.cpu().numpy()
                for key, found in _predict_all(means[ridge], residual, x, new, flats, noises)
            }
        trials = [Trial(settings, lds(found)) for settings, found in predicted[ridge].items()]
        settings = max(trials, key=lambda trial: trial.lds).settings
        return settings, trials, predicted[ridge][settings]

    settings, trials, _ = best(slice(None))
    cross_fitted = np.full_like(actual, np.nan)
    if parts := halves(actual.shape[1]):
        for half, other in (parts, parts[::-1]):
            cross_fitted[:, half] = best(other)[2][:, half]
    stated = fit(means[settings.ridge], masks, outputs, settings, validation_masks)
    off = (validation_outputs.T - stated.predicted).abs() / stated.deviation.clamp(_LEAST)
    width = float(off.flatten().quantile(0.9)) / NINETY
    return Choice(replace(settings, width=width), trials, cross_fitted)


def _predict_all(
    tau: Tensor,
    residual: Tensor,
    x: Tensor,
    new: Tensor,
    flats: Sequence[float],
    noises: Sequence[float],
) -> list[tuple[tuple[float, float], Tensor]]:
    """Changes of the outputs that each (κ, σ²) predicts for new centered masks, `[t, k]` each."""
    predicted = {
        (flat, noise): new.new_empty(len(tau), len(new)) for flat in flats for noise in noises
    }
    for row in range(len(tau)):
        for flat in flats:
            variance = _variances(tau[row], flat)
            kernel, cross = (x * variance) @ x.T, (new * variance) @ x.T
            level = kernel.diagonal().mean().clamp(min=_LEAST)
            added = 0.0
            for noise in noises:  # a few Cholesky factors cost less than an eigendecomposition
                kernel.diagonal().add_((noise - added) * level)
                added = noise
                factor = torch.linalg.cholesky(kernel)
                alpha = torch.cholesky_solve(residual[row, :, None], factor)[:, 0]
                predicted[flat, noise][row] = new @ tau[row] + cross @ alpha
    return list(predicted.items())


_TOLERANCE = 1e-3
"""Conjugate gradients stop when the residual's norm has shrunk by this factor."""
_MOST_STEPS = 100
_LEAST = 1e-30


def _centered(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks minus the mean of each column, `[m, n]` float32, and those means `[n]`."""
    x = masks.float()
    mean = x.mean(dim=0)
    return x - mean, mean


def _variances(tau: Tensor, flat: float) -> Tensor:
    """v `[n]`; all ones where the prior is zero."""
    square = tau.square()
    level = square.mean()
    return square + flat * level if level > _LEAST else torch.ones_like(square)


def _check(masks: Tensor, outputs: Tensor) -> None:
    if len(masks) < 3:
        raise DataError(f"A datamodel needs three subset runs or more; there are {len(masks)}.")
    if not torch.isfinite(outputs).all():
        raise DataError("The outputs of the subset runs hold NaN or infinite values.")
