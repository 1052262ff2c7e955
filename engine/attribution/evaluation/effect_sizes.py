"""How much outputs change when examples are removed from *all* the data, fitted to such removals.

The calibration (`calibration`) turns scores into changes of the output between random halves. An
example counts differently in the whole: its weight in the mean loss is smaller, scores of examples
that matter little are mostly noise, and examples that were chosen because they support a
prediction are similar, so the effect of each grows when the others are gone. With the calibrated
sum of scores t = slope · Σ_S τ_i of a removal S of k of the n training examples,

    change = −t · n/(n − k) · [(1 − w) · ordinary + w · (chosen + growth · log(1 + |t|))],
    w = z² / (z² + 9),   z = |t| / √(k · mean t_i²),

where w says how much S looks chosen for this output: it is about .1 for random removals, and near 1
for the strongest supporters. The variance of the error is

    (1 − w) · ordinary² · score_error · k · mean t_i² + w · chosen_error · (t² + 4 Σ_S t_i²).

`score_error` comes from the residuals of subset runs. All else is fitted to *planned removals*:
models trained on all the data but the strongest supporters of several test examples at once
(`plan_removals`), beside a model with the same seed that was trained on all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.attribution.evaluation.calibration import NINETY

ORDINARY = 3.0
"""z at which half of the weight is on each slope; random removals have about 1."""
FEWEST_REMOVALS = 3
_FEWEST_TARGETS = 3
_ROUNDS = 15
_FIRST_ERROR = 0.1
_LEAST_ERROR = 1e-4
_SMALL = 1e-300
_ALONE = 4.0
_FARTHEST = 3.0
"""Residuals count at most as if they were this many standard deviations."""


@dataclass(frozen=True)
class Removal:
    """Removed examples, as far as they matter to outputs: float64 arrays of one shape.

    Attributes:
        total: t, the calibrated sum of the removed examples' scores.
        squares: Σ t_i² over them.
        level: Mean of t_i² over all training examples.
        count: k, the number of removed examples.
    """

    total: np.ndarray
    squares: np.ndarray
    level: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class EffectSizes:
    """The constants of the model above.

    Attributes:
        ordinary, chosen, growth: Slopes.
        covariance: Of the three slopes.
        score_error: Variance of an example's error, relative to the mean square of its scores.
        chosen_error: Variance of the error that chosen examples share, relative to t²; that of each
            alone is four times as large relative to t_i².
        removals: Number of trainings that these were fitted to; 0 for `TYPICAL`.
    """

    ordinary: float
    chosen: float
    growth: float
    covariance: tuple[tuple[float, float, float], ...]
    score_error: float
    chosen_error: float
    removals: int

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> EffectSizes:
        """From JSON."""
        rows = tuple((float(a), float(b), float(c)) for a, b, c in content["covariance"])
        return cls(**{**content, "covariance": rows})

    @property
    def slopes(self) -> np.ndarray:
        """The three slopes `[3]`, of which the change is a linear function."""
        return np.array([self.ordinary, self.chosen, self.growth])

    def variances(self, removal: Removal) -> tuple[np.ndarray, np.ndarray]:
        """Variance of the errors of single examples' effects, and of the error they share."""
        w = chosenness(removal)
        ordinary = (1 - w) * self.ordinary**2 * self.score_error * removal.count * removal.level
        chosen = w * self.chosen_error
        return ordinary + _ALONE * chosen * removal.squares, chosen * removal.total**2


TYPICAL = EffectSizes(
    ordinary=0.65,
    chosen=0.7,
    growth=0.15,
    covariance=((0.04, 0.0, 0.0), (0.0, 0.04, 0.0), (0.0, 0.0, 0.02)),
    score_error=0.5,
    chosen_error=0.1,
    removals=0,
)
"""Between those of a linear model, an MLP and a CNN (docs/quality.md), with errors that cover all
three: for algorithms without planned removals."""


def score_error(residuals: np.ndarray, noise: np.ndarray, level: np.ndarray, pq: float) -> float:
    """Variance of an example's error relative to the mean square of its scores.

    Over random masks, the errors e_i of the examples' effects add a variance of α(1 − α) Σ e_i² to
    the noise of training.

    Args:
        residuals: Variance of actual minus calibrated outputs of each test example, `[n_test]`.
        noise: The part of it that comes from chance in training, `[n_test]`.
        level: Mean of t_i², `[n_test]`.
        pq: n_train · α(1 − α).
    """
    total = float(level.sum()) * pq
    return max(0.0, float((residuals - noise).sum()) / total) if total > 0 else 0.0


def fit_sizes(
    removals: Sequence[Removal],
    changes: Sequence[np.ndarray],
    targeted: Sequence[np.ndarray],
    noise: np.ndarray,
    error: float,
    n_train: int,
    resamples: int = 200,
    seed: int = 0,
) -> EffectSizes | None:
    """Fit the model to planned removals; None if they are fewer than `FEWEST_REMOVALS`.

    `ordinary` is fitted to the test examples that a removal was not planned for, as far as it does
    not look chosen for them (z < 2), and `chosen` and `growth` to those it was planned for.
    The covariance is that of the slopes over removals drawn with replacement.

    Args:
        removals: One for each training, with a row for every test example.
        changes: Output without the examples minus output with all, `[n_test]` each.
        targeted: Test rows that each was planned for.
        noise: Variance of each output over seeds, `[n_test]`, or any multiple of it.
        error: From `score_error`.
        n_train: Number of training examples.
        resamples, seed: Of the bootstrap.
    """
    if len(removals) < FEWEST_REMOVALS:
        return None
    parts = [
        _Part.of(one, change, tests, noise, n_train)
        for one, change, tests in zip(removals, changes, targeted, strict=True)
    ]
    found = _fit(parts, error)
    if found is None:
        return None
    slopes, chosen_error = found
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        some = _fit([parts[n] for n in generator.integers(len(parts), size=len(parts))], error, 3)
        if some is not None:
            drawn.append(some[0])
    covariance = np.cov(np.array(drawn), rowvar=False) if len(drawn) > 1 else np.zeros((3, 3))
    rows = tuple((float(a), float(b), float(c)) for a, b, c in covariance)
    ordinary, chosen, growth = (float(value) for value in slopes)
    return EffectSizes(ordinary, chosen, growth, rows, error, chosen_error, len(removals))


@dataclass(frozen=True)
class _Part:
    """What one removal tells.

    Attributes:
        sums: Over the ordinary test examples, with g the basis of a single slope, y the change and
            v its weight: Σ v g y, Σ v g², Σ y², Σ g y, Σ g², Σ noise, Σ k · level.
        derivatives, change, noise, spread, scale, weight: Of the targeted ones, `[targets, ...]`; `scale`
            is what `chosen_error` multiplies.
    """

    sums: np.ndarray
    derivatives: np.ndarray
    change: np.ndarray
    noise: np.ndarray
    spread: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls,
        removal: Removal,
        change: np.ndarray,
        targeted: np.ndarray,
        noise: np.ndarray,
        n_train: int,
    ) -> _Part:
        mine = np.zeros(len(change), bool)
        mine[targeted] = True
        spread, w = spread_of(removal), chosenness(removal)
        derivatives, change = basis(removal, n_train), np.asarray(change, np.float64)
        rows = ~mine & (np.abs(removal.total) < 2 * np.sqrt(spread))
        g, y, v = derivatives[rows, :2].sum(axis=1), change[rows], noise[rows] + 0.3 * spread[rows]
        products = (g * y / v, g * g / v, y * y, g * y, g * g, noise[rows], spread[rows])
        rows = mine & (removal.total != 0)
        scale = w * (removal.total**2 + _ALONE * removal.squares)
        own = (derivatives, change, noise, spread, scale, w)
        return cls(np.array([one.sum() for one in products]), *(array[rows] for array in own))


def _fit(
    parts: Sequence[_Part], error: float, rounds: int = _ROUNDS
) -> tuple[np.ndarray, float] | None:
    """Slopes `[3]` and `chosen_error`; None if nothing is removed that has a score."""
    cross, square, y_y, g_y, g_g, chance, spread = np.sum([part.sums for part in parts], axis=0)
    if square == 0 or sum(len(part.change) for part in parts) < _FEWEST_TARGETS:
        return None
    ordinary = cross / square
    # Models of a pair share a seed, so their difference may have less noise than two models have.
    left = y_y - 2 * ordinary * g_y + ordinary**2 * (g_g - error * spread)
    per_noise = max(0.0, left / chance) if chance > 0 else 0.0
    derivatives, change, noise, spread, scale, w = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("derivatives", "change", "noise", "spread", "scale", "weight")
    )
    base = per_noise * noise + (1 - w) * ordinary**2 * error * spread
    rest, own = change - ordinary * derivatives[:, 0], derivatives[:, 1:]
    variance = base + _FIRST_ERROR * scale
    for _ in range(rounds):
        root = np.sqrt(variance)
        slopes = np.linalg.lstsq(own / root[:, None], rest / root, rcond=None)[0]
        off = np.minimum(np.square(rest - own @ slopes), _FARTHEST**2 * variance) - base
        relative = scale / variance
        chosen = max(_LEAST_ERROR, float(relative @ (off / variance) / (relative @ relative)))
        variance = base + chosen * scale
    # So that 90 % of the changes are inside their 90 % intervals.
    width = float(np.quantile(np.abs(rest - own @ slopes) / np.sqrt(variance), 0.9)) / NINETY
    return np.array([ordinary, *slopes]), chosen * width**2


def chosenness(removal: Removal) -> np.ndarray:
    """w: how much the examples look chosen for each output, from 0 to 1."""
    square = removal.total**2
    found: np.ndarray = square / np.maximum(square + ORDINARY**2 * spread_of(removal), _SMALL)
    return found


def basis(removal: Removal, n_train: int) -> np.ndarray:
    """Derivatives of the change by the three slopes, `[..., 3]`."""
    grown = -removal.total * n_train / np.maximum(n_train - removal.count, 1)
    w = chosenness(removal)
    return np.stack([grown * (1 - w), grown * w, grown * w * np.log1p(np.abs(removal.total))], -1)


def spread_of(removal: Removal) -> np.ndarray:
    """Variance of t for a random removal of as many examples."""
    spread: np.ndarray = removal.count * removal.level
    return spread
