"""Tests of whether unlearned models differ from retrained ones, and methods from each other.

Models are what is random here: two models share no initial weights and no batch order, while all
examples are seen by the same models. So every p-value comes from exchanging *models*, whole rows of
margins, and holds however strongly examples depend on each other:

- unlearned models and oracles are exchangeable if the method unlearns perfectly;
- the models of two methods that start from the same original are a pair, and exchangeable within
  it if the methods are equally good.

The membership test asks, example by example, whether a margin comes from an unlearned model or from
a retrained one, given how both are distributed (the per-example attack of U-LiRA: Hayes et al.
2024, Inexact Unlearning Needs More Careful Evaluations; Carlini et al. 2022, LiRA). Both
distributions are taken for normal and fitted to half of the models; the other half is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from engine.applications.unlearning.klom import Direction, at_half, halves, klom
from engine.attribution.evaluation.quality import Measured

EXCHANGES = 199
"""Random exchanges; the smallest p-value is 1/(1 + EXCHANGES)."""
REMEMBERED_RATE = 0.05
"""False discovery rate of `remembered`."""
_LEAST_VARIANCE = 1e-6


def p_differs(unlearned: np.ndarray, oracle: np.ndarray, direction: Direction) -> float:
    """p-value that unlearned models are farther from oracles than other oracles would be.

    Args:
        unlearned, oracle: Margins `[N, n]`, the same number of models each.
    """
    both = np.concatenate([unlearned, oracle])
    count = len(unlearned)

    def distance(order: np.ndarray) -> float:
        mixed = both[order]
        return _mean_klom(mixed[:count], mixed[count:], direction)

    generator = np.random.Generator(np.random.PCG64(count))
    orders = (generator.permutation(len(both)) for _ in range(EXCHANGES))
    return _p_value(distance(np.arange(len(both))), map(distance, orders))


def p_closer(one: np.ndarray, other: np.ndarray, oracle: np.ndarray, direction: Direction) -> float:
    """p-value that `one` method's models are closer to the oracles than the `other`'s.

    Args:
        one, other: Margins `[N, n]`; model k of both started from the same original.
        oracle: Margins of the oracles, `[N, n]`.
    """

    def gain(exchanged: np.ndarray) -> float:
        first = np.where(exchanged[:, None], other, one)
        second = np.where(exchanged[:, None], one, other)
        return _mean_klom(second, oracle, direction) - _mean_klom(first, oracle, direction)

    count = len(one)
    generator = np.random.Generator(np.random.PCG64(count))
    exchanges = (generator.random(count) < 0.5 for _ in range(EXCHANGES))
    return _p_value(gain(np.zeros(count, bool)), map(gain, exchanges))


def _mean_klom(unlearned: np.ndarray, oracle: np.ndarray, direction: Direction) -> float:
    return float(klom(unlearned=unlearned, oracle=oracle, direction=direction).mean())


def _p_value(found: float, under_null: Iterator[float]) -> float:
    least = found - 1e-12  # rounding must not break ties
    return (1 + sum(value >= least for value in under_null)) / (1 + EXCHANGES)


def share_of_way(
    unlearned: np.ndarray, original: np.ndarray, oracle: np.ndarray, direction: Direction
) -> Measured | None:
    """How far a method gets from doing nothing (0) to the floor (1), by mean KLoM at half.

    The interval is that of a jackknife over halves of the models (Shao & Wu 1989).

    Args:
        unlearned, original, oracle: Margins `[N, n]`.

    Returns:
        None where doing nothing is no farther than the floor.
    """

    mine, was, floor = (
        at_half(unlearned=models, oracle=oracle, direction=direction).mean(axis=1)
        for models in (unlearned, original, oracle)
    )
    length = float(was.mean() - floor.mean())
    if length <= 0:
        return None
    share = float(was.mean() - mine.mean()) / length
    # The error of a ratio of means, by its derivative.
    error = float(np.std((was - mine - share * (was - floor)) / length, ddof=1))
    return Measured(share, share - 1.96 * error, share + 1.96 * error)


def membership_attack(unlearned: np.ndarray, oracle: np.ndarray) -> Measured:
    """Advantage of guessing whether a margin is of an unlearned or a retrained model.

    It is 2 · accuracy − 1, mean over examples: 0 if nothing can be told, 1 if everything. Models
    that are guessed were not fitted to, so its expectation is 0 for perfect unlearning. The
    interval is that of a jackknife over halves of the models.

    Args:
        unlearned, oracle: Margins `[N, n]`, N at least 4.
    """
    found = []
    for first, second in halves(len(oracle)):
        for fitted, others in ((first, second), (second, first)):
            ratio = _log_ratio(unlearned[fitted], oracle[fitted])
            right = (ratio(unlearned[others]) > 0).mean() + (ratio(oracle[others]) < 0).mean()
            found.append(float(right) - 1)
    advantage, error = float(np.mean(found)), float(np.std(found, ddof=1))
    return Measured(advantage, advantage - 1.96 * error, advantage + 1.96 * error)


def _log_ratio(unlearned: np.ndarray, oracle: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Log of p(margin | unlearned) / p(margin | retrained), of normal distributions per example."""
    fits = [
        (margins.mean(axis=0), margins.var(axis=0, ddof=1) + _LEAST_VARIANCE)
        for margins in (unlearned, oracle)
    ]

    def ratio(margins: np.ndarray) -> np.ndarray:
        logs = [-((margins - mean) ** 2) / variance - np.log(variance) for mean, variance in fits]
        found: np.ndarray = logs[0] - logs[1]
        return found

    return ratio


def remembered(unlearned: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """Columns of the examples that unlearned models predict better than retrained ones do, int64.

    Welch's one-sided t-test for each example, with the false discovery rate held at
    `REMEMBERED_RATE` (Benjamini & Hochberg 1995); the clearest first.

    Args:
        unlearned, oracle: Margins `[N, n]`.
    """
    from scipy.stats import false_discovery_control, ttest_ind

    with np.errstate(invalid="ignore", divide="ignore"):
        p = ttest_ind(unlearned, oracle, axis=0, equal_var=False, alternative="greater").pvalue
    p = np.nan_to_num(np.asarray(p), nan=1.0)
    adjusted = false_discovery_control(p)
    found = np.flatnonzero(adjusted < REMEMBERED_RATE)
    ordered: np.ndarray = found[np.argsort(p[found], kind="stable")]
    return ordered
