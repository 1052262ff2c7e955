"""How much outputs change when examples are removed from *all* the data, fitted to such removals.

The calibration (`calibration`) turns scores into changes of the output between random halves. An
example counts differently in the whole: its weight in the mean loss is smaller, scores of examples
that matter little are mostly noise, and examples that were chosen because they support a
prediction are similar, so the effect of each grows when the others are gone. With the calibrated
sum of scores t = slope · Σ_S τ_i of a removal S of k of the n training examples,

    change = −t · [f + (1 − f) · ((1 − w) · ordinary + w · (chosen + growth · log(1 + |t|)))],
    f = min(1, k / (n · (1 − α))),   w = z² / (z² + 9),   z = |t| / √(k · mean t_i²).

f says how close the removal comes to a random subset, where the calibrated sum is right; α is the
share of the examples in a subset. w says how much S looks chosen for this output: it is about .1
for random removals, and near 1 for the strongest supporters. The variance of the error is

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

ORDINARY = 3.0
"""z at which half of the weight is on each slope; random removals have about 1."""
FEWEST_REMOVALS = 3
_FEWEST_TARGETS = 3
_ALONE = 4.0
"""Variance of a chosen example's own error, relative to the error that chosen examples share."""
_SEEDS = 4.0
"""How many seeds the mean variance of all outputs counts for."""
_PRIOR = 4.0
"""How many targets the typical error counts for."""
_LEAST_ERROR = 1e-3
_FARTHEST = 3.0
"""Residuals count at most as if they were this many standard deviations."""
_ROUNDS = 15
_RIDGE = 1e-6
"""Added to variances of slopes, so that the matrix can be inverted."""
_UNKNOWN = np.eye(3)
"""Covariance of the slopes where the bootstrap cannot tell."""
_SMALL = 1e-300


@dataclass(frozen=True)
class Removal:
    """Removed examples, as far as they matter to outputs: float64 arrays of one shape.

    Attributes:
        total: t, the calibrated sum of the removed examples' scores.
        squares: Σ t_i² over them.
        level: Mean of t_i² over all training examples.
        count: k, the number of removed examples.
        fraction: f, the removed examples as a share of those that a random subset leaves out, at
            most 1.
    """

    total: np.ndarray
    squares: np.ndarray
    level: np.ndarray
    count: np.ndarray
    fraction: np.ndarray

    @classmethod
    def of(
        cls,
        slope: float,
        totals: np.ndarray,
        squares: np.ndarray,
        mean_square: np.ndarray,
        counts: int | np.ndarray,
        n_train: int,
        alpha: float,
    ) -> Removal:
        """From scores in their own unit.

        Args:
            slope: Change of the output for a score of 1, between random subsets.
            totals, squares: Sums of the removed examples' scores, and of their squares.
            mean_square: Of the scores of all training examples.
            counts: Number of removed examples.
            n_train: Number of training examples.
            alpha: Share of them in a random subset.
        """
        count = np.asarray(counts, np.float64)
        return cls(
            total=slope * np.asarray(totals, np.float64),
            squares=slope**2 * np.asarray(squares, np.float64),
            level=slope**2 * np.asarray(mean_square, np.float64),
            count=count,
            fraction=np.minimum(1.0, count / (n_train * (1 - alpha))),
        )


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
        ordinary = (1 - w) * self.ordinary**2 * self.score_error * spread_of(removal)
        chosen = w * self.chosen_error
        return ordinary + _ALONE * chosen * removal.squares, chosen * removal.total**2


TYPICAL = EffectSizes(
    ordinary=0.65,
    chosen=0.7,
    growth=0.2,
    covariance=((0.06, 0.0, 0.0), (0.0, 0.06, 0.0), (0.0, 0.0, 0.04)),
    score_error=0.5,
    chosen_error=0.06,
    removals=0,
)
"""Between those of a linear model, an MLP and a CNN (docs/quality.md), with errors that cover all
three: for algorithms without planned removals."""


def moderated_variance(outputs: np.ndarray) -> np.ndarray:
    """Variance over seeds of each test output, `[n_test]`, drawn toward their mean.

    A variance from a few seeds is often far too small, and then counts far too much. The mean of
    all outputs weighs as much as `_SEEDS` seeds (Smyth 2004, with a fixed prior). All zeros for one
    seed.

    Args:
        outputs: `[seeds, n_test]`.
    """
    seeds = len(outputs)
    if seeds < 2:
        return np.zeros(outputs.shape[1])
    each = np.var(outputs, axis=0, dtype=np.float64, ddof=1)
    found: np.ndarray = ((seeds - 1) * each + _SEEDS * each.mean()) / (seeds - 1 + _SEEDS)
    return found


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
    resamples: int = 200,
    seed: int = 0,
) -> EffectSizes | None:
    """Fit the model to planned removals; None if they are fewer than `FEWEST_REMOVALS`.

    `ordinary` is fitted to the test examples that a removal was not planned for, as far as it does
    not look chosen for them (z < 2), and `chosen` and `growth` to those it was planned for.
    The covariance is that of the slopes over removals drawn with replacement. Both are combined
    with the `TYPICAL` ones.

    Args:
        removals: One for each training, with a row for every test example.
        changes: Output without the examples minus output with all, `[n_test]` each.
        targeted: Test rows that each was planned for.
        noise: Variance of each output over seeds, `[n_test]`, or any multiple of it.
        error: From `score_error`.
        resamples, seed: Of the bootstrap.
    """
    if len(removals) < FEWEST_REMOVALS:
        return None
    if not noise.any():  # models that do not depend on chance: the same error for all
        noise = np.ones(len(noise))
    parts = [
        _Part.of(one, change, tests, noise)
        for one, change, tests in zip(removals, changes, targeted, strict=True)
    ]
    found = _fit(parts, error)
    if found is None:
        return None
    slopes, chosen_error = found
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        some = _fit([parts[n] for n in generator.integers(len(parts), size=len(parts))], error)
        if some is not None:
            drawn.append(some[0])
    # The inverse of a covariance from few draws is too large: the mean of inverse Wishart matrices.
    few = (len(parts) - 1) / max(0.5, len(parts) - 5)
    covariance = few * np.cov(np.array(drawn), rowvar=False) if len(drawn) > 3 else _UNKNOWN
    covariance += _RIDGE * np.eye(3)
    slopes, covariance = _combined(slopes, covariance)
    rows = tuple((float(a), float(b), float(c)) for a, b, c in covariance)
    ordinary, chosen, growth = (float(value) for value in slopes)
    return EffectSizes(ordinary, chosen, growth, rows, error, chosen_error, len(removals))


def _combined(slopes: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fitted slopes combined with `TYPICAL` ones, each as certain as it is, and their covariance.

    Where removals are few and outputs are noisy, slopes alone would be wild guesses.
    """
    typical, fitted = (np.linalg.inv(np.array(one)) for one in (TYPICAL.covariance, covariance))
    found = np.linalg.inv(typical + fitted)
    mean: np.ndarray = found @ (fitted @ slopes + typical @ TYPICAL.slopes)
    return mean, found


@dataclass(frozen=True)
class _Part:
    """What one removal tells; changes are without the offset of `basis`.

    Attributes:
        weighted, plain: Products of (three derivatives, change) with each other, summed over the
            ordinary test examples, `[4, 4]`; `weighted` by how certain each is.
        noise_sum, spread_sum: Sums of noise and of k · level over those.
        derivatives, change, noise, spread, scale, weight: Of the targeted ones, `[targets, ...]`;
            `scale` is what `chosen_error` multiplies.
    """

    weighted: np.ndarray
    plain: np.ndarray
    noise_sum: float
    spread_sum: float
    derivatives: np.ndarray
    change: np.ndarray
    noise: np.ndarray
    spread: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, removal: Removal, change: np.ndarray, targeted: np.ndarray, noise: np.ndarray
    ) -> _Part:
        mine = np.zeros(len(change), bool)
        mine[targeted] = True
        spread, w = spread_of(removal), chosenness(removal)
        offset, derivatives = basis(removal)
        change = np.asarray(change, np.float64) - offset
        rows = ~mine & (np.abs(removal.total) < 2 * np.sqrt(spread))
        columns = np.column_stack([derivatives[rows], change[rows]])
        certain = 1 / (noise[rows] + 0.3 * spread[rows])
        scale = w * (removal.total**2 + _ALONE * removal.squares)
        sums = float(noise[rows].sum()), float(spread[rows].sum())
        gram = columns.T @ (certain[:, None] * columns), columns.T @ columns
        rows = mine & (removal.total != 0)
        own = (derivatives, change, noise, spread, scale, w)
        return cls(*gram, *sums, *(array[rows] for array in own))


def _fit(parts: Sequence[_Part], error: float) -> tuple[np.ndarray, float] | None:
    """Slopes `[3]` and `chosen_error`; None if nothing is removed that has a score."""
    weighted, plain = (sum(getattr(part, name) for part in parts) for name in ("weighted", "plain"))
    if weighted[0, 0] == 0 or sum(len(part.change) for part in parts) < _FEWEST_TARGETS:
        return None
    noise_sum, spread_sum = (
        sum(getattr(part, name) for part in parts) for name in ("noise_sum", "spread_sum")
    )
    derivatives, change, noise, spread, scale, w = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("derivatives", "change", "noise", "spread", "scale", "weight")
    )
    slopes, chosen = np.array([1.0, 1.0, 0.0]), TYPICAL.chosen_error
    for _ in range(_ROUNDS):
        slopes[0] = (weighted[0, 3] - weighted[0, 1:3] @ slopes[1:]) / weighted[0, 0]
        # Models of a pair share a seed, so their difference may be less noisy than two models.
        signed = np.append(slopes, -1.0)
        left = signed @ plain @ signed - slopes[0] ** 2 * error * spread_sum
        base = max(0.0, left / noise_sum) * noise + (1 - w) * slopes[0] ** 2 * error * spread
        variance = base + chosen * scale
        root = np.sqrt(variance)
        rest, own = change - slopes[0] * derivatives[:, 0], derivatives[:, 1:]
        slopes[1:] = np.linalg.lstsq(own / root[:, None], rest / root, rcond=None)[0]
        square = np.minimum(np.square(rest - own @ slopes[1:]), _FARTHEST**2 * variance)
        # Each tells as much as the error is a part of its variance.
        tells = np.square(chosen * scale / variance)
        seen = float(tells @ ((square - base) / np.maximum(scale, _SMALL)))
        chosen = (seen + _PRIOR * TYPICAL.chosen_error) / (float(tells.sum()) + _PRIOR)
        chosen = max(_LEAST_ERROR, chosen)
    return slopes, chosen


def chosenness(removal: Removal) -> np.ndarray:
    """w: how much the examples look chosen for each output, from 0 to 1."""
    square = removal.total**2
    found: np.ndarray = square / np.maximum(square + ORDINARY**2 * spread_of(removal), _SMALL)
    return found


def basis(removal: Removal) -> tuple[np.ndarray, np.ndarray]:
    """The change is offset `[...]` + derivatives `[..., 3]` · slopes."""
    whole, w = -removal.total * (1 - removal.fraction), chosenness(removal)
    derivatives = [whole * (1 - w), whole * w, whole * w * np.log1p(np.abs(removal.total))]
    return -removal.total * removal.fraction, np.stack(derivatives, -1)


def spread_of(removal: Removal) -> np.ndarray:
    """Variance of t for a random removal of as many examples."""
    spread: np.ndarray = removal.count * removal.level
    return spread
