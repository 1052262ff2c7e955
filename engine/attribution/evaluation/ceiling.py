"""The noise ceiling: the LDS that perfect predictions would reach.

Two models trained on the same mask differ by chance: initial weights, order of examples. So even
the true mean output of every mask does not order measured outputs perfectly. For one test example,
let R be the *reliability* of the measured outputs: the share of their variance over masks that is
not chance. Predictions that equal the true means have the Pearson correlation √R with them.

With two runs or more of a mask, R follows from a one-way analysis of variance: σ² is the variance
within masks, and σ² · mean(1/runs) is the part of the variance of the masks' means that is chance.
θ = 1 − R, the share of chance, is estimated by the ratio of the two times (m − 3)/(m − 1). Under
normality the mean of this θ̂ is θ, and the mean of θ̂² is a known multiple of θ².

The ceiling is the mean over test examples of a function of R that is steep at 0. Taken at each R̂
it would be far too high where there is nothing but noise. Taken at the mean of R̂ it would be too
high where R differs between examples. So the mean and the variance of R over the examples are
estimated, both without bias, and the function is averaged over the beta distribution with these
moments. A negative mean counts as that much below 0, so on pure noise the ceiling is 0 on average.

Spearman's correlation is lower than Pearson's: its expectation for m pairs of normal values is
6/(π(m + 1)) · (asin r + (m − 2) asin(r/2)) (Moran 1948). Where outputs are far from normal this
is off: by up to −0.05 for noise with very heavy tails, and more for very skewed true means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.quality import Measured

LEAST_MASKS = 6
"""The variance of R̂ over test examples needs so many masks, and as many with two runs or more."""
_QUANTILES = 256
_MOST_RELATIVE_VARIANCE = 0.98


@dataclass(frozen=True)
class RepeatedRuns:
    """Outputs of runs of which several share a mask.

    Attributes:
        means: Mean output over the runs of each mask, `[m, n_test]`.
        squares: Sum of squared deviations of these runs from it, `[m, n_test]`; 0 for one run.
        runs: Number of runs of each mask, int64 `[m]`.
    """

    means: np.ndarray
    squares: np.ndarray
    runs: np.ndarray

    @property
    def enough(self) -> bool:
        """Whether the noise ceiling can be estimated."""
        return int((self.runs > 1).sum()) >= LEAST_MASKS


def noise_ceiling(repeated: RepeatedRuns) -> Measured | None:
    """The LDS that perfect predictions would reach, with its 95 % interval.

    Returns:
        None where too few masks were repeated. A mean that is not positive, or an interval that
        holds 0: runs of one mask agree no more than runs of different masks.
    """
    from scipy.stats import t  # takes a second to import, and most readers need none

    if not repeated.enough:
        return None
    m = len(repeated.runs)
    reliability, relative_variance = _moments(repeated)
    if reliability == 1:  # runs of the same mask are all equal
        return Measured(1.0, 1.0, 1.0)
    factor = np.exp(t.ppf(0.975, m - 1) * _error(repeated))
    mean, low, high = (
        _mean_correlation(max(-1.0, 1 - chance), relative_variance, m)
        for chance in (1 - reliability, (1 - reliability) * factor, (1 - reliability) / factor)
    )
    return Measured(mean, low, high)


def expected_spearman(pearson: np.ndarray, m: int) -> np.ndarray:
    """Expectation of Spearman's correlation of m pairs of normal values."""
    found: np.ndarray = (
        6 / (np.pi * (m + 1)) * (np.arcsin(pearson) + (m - 2) * np.arcsin(pearson / 2))
    )
    return found


def _moments(repeated: RepeatedRuns) -> tuple[float, float]:
    """Mean of R over test examples, and its variance as a share of the largest possible one."""
    between, within = len(repeated.runs) - 1, int((repeated.runs - 1).sum())
    chance = _chance(repeated)
    spread = 2 * (between + within - 2) / (within * (between - 4))  # of θ̂² around θ²
    mean = float(chance.mean())
    variance = float((chance**2).mean()) / (1 + spread) - mean**2
    most = abs(1 - mean) * (1 - abs(1 - mean))
    relative = variance / most if most > 0 else 0.0
    return 1 - mean, float(np.clip(relative, 0, _MOST_RELATIVE_VARIANCE))


def _chance(repeated: RepeatedRuns) -> np.ndarray:
    """θ̂ of each test example, float64 `[n_test]`.

    It is 1 where the means of the masks do not differ: nothing orders them.
    """
    m = len(repeated.runs)
    within = repeated.squares.sum(axis=0, dtype=np.float64) / (repeated.runs - 1).sum()
    between = repeated.means.var(axis=0, ddof=1, dtype=np.float64)
    share: np.ndarray = np.ones_like(within)
    noise = within * (1 / repeated.runs).mean() * (m - 3) / (m - 1)
    np.divide(noise, between, out=share, where=between > 0)
    return share


def _mean_correlation(reliability: float, relative_variance: float, m: int) -> float:
    """Mean expected Spearman's correlation over test examples whose R has these moments."""
    from scipy.stats import beta  # takes a second to import, and most readers need none

    mean = abs(reliability)
    each = np.array([mean])
    if relative_variance > 0 and 0 < mean < 1:
        total = 1 / relative_variance - 1
        places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        each = beta.ppf(places, mean * total, (1 - mean) * total)
    return float(np.sign(reliability) * expected_spearman(np.sqrt(each), m).mean())


def _error(repeated: RepeatedRuns) -> float:
    """Standard error of the logarithm of the mean θ̂, by the jackknife over masks and over test
    examples, whose variances are added."""
    m, each = len(repeated.runs), _chance(repeated)
    over_tests = each.std() / np.sqrt(max(1, len(each) - 1)) / each.mean()
    deviations = (repeated.means - repeated.means.mean(axis=0, dtype=np.float64)) ** 2
    between = (deviations.sum(axis=0) - deviations * m / (m - 1)) / (m - 2)
    spare, inverse = repeated.runs - 1, 1 / repeated.runs
    within = repeated.squares.sum(axis=0, dtype=np.float64) - repeated.squares
    within *= ((inverse.sum() - inverse) / (m - 1) / (spare.sum() - spare))[:, None]
    without = np.ones_like(within)
    np.divide(within * (m - 4) / (m - 2), between, out=without, where=between > 0)
    over_masks = np.sqrt((m - 1) * np.var(np.log(without.mean(axis=1))))
    return float(np.hypot(over_masks, over_tests))
