"""The linear datamodeling score (LDS): how well attributions predict the outputs of models that
were trained on subsets.

For a test example x and m subset runs, LDS(x) is Spearman's rank correlation over the runs between
the predicted output Σ_{i in subset} τ(x)_i and the actual output. The LDS of a method is the mean
over test examples (Park et al. 2023, TRAK, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.quality import TWO_SIDED_95, Measured
from engine.store.errors import DataError

_LEAST_RUNS = 3
_MOST = 1 - 1e-9
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Lds:
    """A linear datamodeling score.

    Attributes:
        mean: Mean over test examples.
        low, high: Bootstrap interval of `mean`.
        per_test: LDS of each test example, float64 `[n_test]`.
        n_runs: Number of subset runs it was measured on.
    """

    mean: float
    low: float
    high: float
    per_test: np.ndarray
    n_runs: int


def lds(
    scores: np.ndarray,
    masks: np.ndarray,
    outputs: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Lds:
    """LDS of attributions on subset runs that were not used to choose anything.

    Args:
        scores: τ `[n_test, n_train]`.
        masks: Which training examples each run was trained on, bool `[m, n_train]`.
        outputs: Model outputs of the runs, `[m, n_test]`, already averaged over seeds of a mask.
        confidence: Of the interval.
        resamples: Of the bootstrap, which resamples test examples *and* runs. Where noise is
            independent for each (test, run) pair the interval is wider than necessary, but it is
            never much too narrow (Owen 2007, The pigeonhole bootstrap).
        seed: Of the bootstrap.

    Raises:
        DataError: Shapes do not fit, there are fewer than three runs, or values are not finite.
    """
    m, n_train = masks.shape
    if outputs.shape != (m, len(scores)) or scores.shape[1] != n_train:
        raise DataError(
            f"Scores {list(scores.shape)} [n_test, n_train], masks {list(masks.shape)} "
            f"[runs, n_train] and outputs {list(outputs.shape)} [runs, n_test] do not fit together."
        )
    predicted = scores @ masks.T.astype(scores.dtype)
    return lds_of_predictions(predicted, outputs.T, confidence, resamples, seed)


def lds_of_predictions(
    predicted: np.ndarray,
    actual: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Lds:
    """LDS of predicted outputs `[n_test, m]`, given the actual outputs `[n_test, m]`.

    Only the order within each row of predictions counts. All else is as for `lds`.
    """
    m = predicted.shape[1]
    if m < _LEAST_RUNS:
        raise DataError(f"LDS needs {_LEAST_RUNS} subset runs or more; there are {m}.")
    actual = np.ascontiguousarray(actual)
    for values, what in ((predicted, "scores"), (actual, "outputs of the subset runs")):
        if not np.isfinite(values).all():
            raise DataError(f"The {what} hold NaN or infinite values.")
    per_test = spearman(predicted, actual)
    mean = float(per_test.mean())
    means = bootstrap_means(predicted, actual, resamples, np.random.default_rng(seed))
    # A run that is drawn twice ties with itself, which lowers the correlation of every resample.
    means += mean - means.mean()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).clip(-1, 1)
    return Lds(mean, float(low), float(high), per_test, m)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of `a` with the same row of `b`: float64 `[n]`.

    Ties share their mean rank. The correlation with a constant row is 0.

    Args:
        a, b: `[n, m]`.
    """
    from scipy.stats import rankdata  # takes a second to import, and most readers never rank

    both = rankdata(a, axis=1), rankdata(b, axis=1)
    return _correlation(*both, np.ones((a.shape[1], 1)))[:, 0]


def interval_of_one(correlation: float, runs: int) -> Measured:
    """The LDS of one test example with its 95 % interval, by Fisher's z (Bonett and Wright 2000).

    Over few runs the interval is wide; over three or fewer it is everything.
    """
    if runs <= _LEAST_RUNS:
        return Measured(correlation, -1.0, 1.0)
    z = np.arctanh(np.clip(correlation, -_MOST, _MOST))
    reach = TWO_SIDED_95 * np.sqrt((1 + correlation**2 / 2) / (runs - 3))
    return Measured(correlation, float(np.tanh(z - reach)), float(np.tanh(z + reach)))


def _correlation(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's correlation `[n, r]` of ranks `[n, m]` or `[n, m, r]`, where run j occurs
    counts[j, r] times in resample r."""
    a, b = (values[..., None] if values.ndim == 2 else values for values in (a, b))
    total = counts.sum(axis=0)
    middle = (total + 1) / 2  # the mean of ranks 1…total, whatever the ties
    a, b = a - middle, b - middle
    weighted = a * counts
    covariance = np.einsum("nmr,nmr->nr", weighted, b)
    variances = np.einsum("nmr,nmr->nr", weighted, a) * np.einsum("nmr,nmr,mr->nr", b, b, counts)
    result: np.ndarray = np.zeros_like(covariance)
    np.divide(covariance, np.sqrt(variances), out=result, where=variances > 0)
    return result


def bootstrap_means(
    predicted: np.ndarray, actual: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Mean LDS of each resample `[resamples]`, with test examples and runs drawn with replacement.

    A run's rank among the drawn runs is the number of runs below it, plus half of the runs that
    tie, plus 1/2. So one comparison of all pairs of runs, times how often each was drawn, gives the
    ranks of all resamples at once.
    """
    n, m = predicted.shape
    runs = generator.multinomial(m, np.full(m, 1 / m), size=resamples).T.astype(np.float32)
    tests = generator.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float32)
    means: np.ndarray = np.zeros(resamples)
    rows = max(1, _BLOCK_BYTES // (4 * m * max(m, resamples)))
    for start in range(0, n, rows):
        block = slice(start, start + rows)
        drawn = [_below(values[block]) @ runs + 0.5 for values in (predicted, actual)]
        correlation = _correlation(drawn[0], drawn[1], runs)
        means += np.einsum("rn,nr->r", tests[:, block], correlation)
    means /= n
    return means


def _below(values: np.ndarray) -> np.ndarray:
    """`[n, m, m]`: 1 where run j is below run i, 1/2 where they tie, else 0."""
    own, other = values[:, :, None], values[:, None, :]
    below: np.ndarray = (other < own).astype(np.float32)
    below += np.float32(0.5) * (other == own)
    return below
