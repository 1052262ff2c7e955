"""TRAK as the prior of a datamodel: what a few runs say, read in the light of the attributions.

For one target with attributions τ, subset runs with masks X `[m, n]` (columns centred) and centred
outputs y:

    w ~ N(cτ, g·diag(v)),   v_i = (cτ_i)² + κ · mean (cτ)²,   y = Xw + noise,  noise ~ N(0, g·σ²)

Where |τ| is large a weight may move; elsewhere it hardly can. So a few hundred runs do what
thousands do for a datamodel that starts from nothing. The posterior mean is

    w = cτ + v ⊙ Xᵀa,   (X diag(v) Xᵀ + σ²I) a = y − c·Xτ,

c is one least-squares slope, and g the scale that makes the residual most likely. Bayesian linear
regression (Bishop 2006, section 3.3) in its dual form, m × m for each target; DESIGN section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.attribution.calibration import NINETY
from engine.attribution.lds import spearman
from engine.errors import DataError

FLATS = (0.1, 0.3, 1.0)
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


@dataclass(frozen=True)
class Settings:
    """What all targets share.

    Attributes:
        flat: κ: variance that every weight has, relative to the mean of (cτ)².
        noise: σ² relative to the mean diagonal of X diag(v) Xᵀ.
        width: Stated deviations are times this, so that intervals of 90 % held 90 % of the
            validation outcomes: settings that order outcomes best state them too wide.
    """

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
    """What the runs make of the attributions of t targets.

    Attributes:
        weights: Posterior means `[t, n]`: what having example i adds to the output.
        bias: `[t]`: the output predicted of a model trained on nothing.
        slope: c `[t]`, output units for a score of 1.
        predicted: Outputs of the new masks `[t, k]`.
        deviation: Standard deviation of what a run on each new mask says, noise included, `[t, k]`.
    """

    weights: Tensor
    bias: Tensor
    slope: Tensor
    predicted: Tensor
    deviation: Tensor


def fit(
    tau: Tensor, masks: Tensor, outputs: Tensor, settings: Settings, new_masks: Tensor | None = None
) -> Posterior:
    """Fit t targets, one after the other; all arrays on one device.

    Args:
        tau: Attributions float32 `[t, n]`, in any unit.
        masks: Of the runs to fit on, `[m, n]`.
        outputs: Of those runs, `[m, t]`.
        settings: From `choose`.
        new_masks: Masks to predict, `[k, n]`; None for none.

    Raises:
        DataError: Outputs are not finite, or there are fewer than three runs.
    """
    _check(masks, outputs)
    x, mean_mask = _centred(masks)
    new = mean_mask[None, :0].new_zeros(0, x.shape[1]) if new_masks is None else new_masks
    new = new.to(x) - mean_mask
    mean_output = outputs.mean(dim=0)
    slope, residual = _residuals(tau, x, outputs - mean_output)
    m, targets = len(x), len(tau)
    weights = torch.empty_like(tau)
    predicted, deviation = (tau.new_empty(targets, len(new)) for _ in range(2))
    for row in range(targets):
        mean = slope[row] * tau[row]
        variance = _variances(mean, settings.flat)
        kernel, cross = (x * variance) @ x.T, (new * variance) @ x.T
        noise = settings.noise * kernel.diagonal().mean().clamp(min=_LEAST)
        kernel.diagonal().add_(noise)
        factor = torch.linalg.cholesky(kernel)
        alpha = torch.cholesky_solve(residual[row, :, None], factor)[:, 0]
        weights[row] = mean + variance * (alpha @ x)
        predicted[row] = mean_output[row] + new @ weights[row]
        # Least squares took one degree of freedom for the mean and one for the slope.
        scale = (residual[row] @ alpha / max(1, m - 2)).clamp(min=0)
        known = torch.linalg.solve_triangular(factor, cross.T, upper=False).square().sum(dim=0)
        spread = (new.square() @ variance - known).clamp(min=0)
        deviation[row] = settings.width * (scale * (spread + noise)).sqrt()
    bias = mean_output - weights @ mean_mask
    return Posterior(weights, bias, slope, predicted, deviation)


def change_deviation(
    tau: Tensor, masks: Tensor, outputs: Tensor, settings: Settings, change: Tensor
) -> tuple[Tensor, Tensor]:
    """What changing the training set does to each target: (mean `[t]`, standard deviation `[t]`).

    Args:
        tau, masks, outputs, settings: As for `fit`.
        change: `[n]`: −1 for each example that is removed, +1 for each that is added.
    """
    x, _ = _centred(masks)
    both = torch.stack([torch.zeros_like(change), change]).to(x) + masks.to(x).mean(dim=0)
    found = fit(tau, masks, outputs, settings, both)
    # At the mean mask all is noise; what lies beyond it is what the weights leave open.
    open_ = found.deviation[:, 1].square() - found.deviation[:, 0].square()
    return found.predicted[:, 1] - found.predicted[:, 0], open_.clamp(min=0).sqrt()


def choose(
    tau: Tensor,
    masks: Tensor,
    outputs: Tensor,
    validation_masks: Tensor,
    validation_outputs: Tensor,
    flats: Sequence[float] = FLATS,
    noises: Sequence[float] = NOISES,
) -> tuple[Settings, list[Trial]]:
    """Choose the settings that foretell the validation runs best, for all targets together.

    A hundred targets are enough. Args as for `fit`; validation masks `[k, n]` and outputs
    `[k, t]` are not fitted to.
    """
    _check(masks, outputs)
    x, mean_mask = _centred(masks)
    new = validation_masks.to(x) - mean_mask
    slope, residual = _residuals(tau, x, outputs - outputs.mean(dim=0))
    actual = np.ascontiguousarray(validation_outputs.T.cpu().numpy())
    predicted = {
        Settings(flat, noise): np.empty(actual.shape, np.float32)
        for flat in flats
        for noise in noises
    }
    for row in range(len(tau)):
        mean = slope[row] * tau[row]
        for flat in flats:
            variance = _variances(mean, flat)
            kernel, cross = (x * variance) @ x.T, (new * variance) @ x.T
            level = kernel.diagonal().mean().clamp(min=_LEAST)
            added = 0.0
            for noise in noises:  # a Cholesky factor each costs less than one eigendecomposition
                kernel.diagonal().add_((noise - added) * level)
                added = noise
                factor = torch.linalg.cholesky(kernel)
                alpha = torch.cholesky_solve(residual[row, :, None], factor)[:, 0]
                found = new @ mean + cross @ alpha
                predicted[Settings(flat, noise)][row] = found.cpu().numpy()
    trials = [
        Trial(settings, float(spearman(found, actual).mean()))
        for settings, found in predicted.items()
    ]
    best = max(trials, key=lambda trial: trial.lds).settings
    stated = fit(tau, masks, outputs, best, validation_masks)
    off = (validation_outputs.T - stated.predicted).abs() / stated.deviation.clamp(_LEAST)
    width = float(off.flatten().quantile(0.9)) / NINETY
    return replace(best, width=width), trials


_LEAST = 1e-30


def _centred(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks less the mean of each column `[m, n]` float32, and those means `[n]`."""
    x = masks.float()
    mean = x.mean(dim=0)
    return x - mean, mean


def _residuals(tau: Tensor, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes c `[t]` of outputs on Xτ, and what they leave `[t, m]`."""
    explained = tau @ x.T
    along = (explained * outputs.T).sum(dim=1)
    slope = along / explained.square().sum(dim=1).clamp(min=_LEAST)
    # A negative slope would turn supporters into opposers: such scores say nothing.
    slope = slope.clamp(min=0)
    return slope, outputs.T - slope[:, None] * explained


def _variances(mean: Tensor, flat: float) -> Tensor:
    """v `[n]`; flat where the prior says nothing at all."""
    square = mean.square()
    level = square.mean()
    return square + flat * level if level > _LEAST else torch.ones_like(square)


def _check(masks: Tensor, outputs: Tensor) -> None:
    if len(masks) < 3:
        raise DataError(f"A datamodel needs three subset runs or more; there are {len(masks)}.")
    if not torch.isfinite(outputs).all():
        raise DataError("The outputs of the subset runs hold NaN or infinite values.")
