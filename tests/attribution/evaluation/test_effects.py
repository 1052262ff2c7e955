"""The predicted effect of removals, against a planted linear model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine.attribution.evaluation.effect_sizes import EffectSizes
from engine.attribution.evaluation.effects import Units, changes, removal, removals
from engine.attribution.evaluation.quality import Measured

N, ERROR = 400, 0.03
EXACT = EffectSizes(1, 1, 0, ((0.0,) * 3,) * 3, score_error=0, chosen_error=0, removals=9)
"""Effects in the whole are those between subsets."""


def units_of(slope: float, sizes: EffectSizes, mean_square: np.ndarray) -> Units:
    return Units(Measured(slope, slope, slope), sizes, mean_square, N, 0.5)


def squares(scores: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.square(scores).sum(axis=-1)
    return found


def test_intervals_hold_the_planted_change() -> None:
    generator = np.random.default_rng(0)
    inside, widths = [], []
    sizes = replace(EXACT, score_error=(ERROR / (5 * 0.01)) ** 2)
    for _ in range(400):
        scores = generator.normal(scale=0.01, size=N)
        weights = 5.0 * scores + generator.normal(scale=ERROR, size=N)
        removed = generator.choice(N, 16, replace=False)
        units = units_of(5, sizes, np.array([np.square(scores).mean()]))
        found = removal(scores[removed], units, 0)
        inside.append(found.low <= -weights[removed].sum() <= found.high)
        widths.append(found.high - found.low)
        assert found.mean == pytest.approx(-5 * scores[removed].sum())
    assert np.mean(inside) == pytest.approx(0.95, abs=0.04)
    assert np.median(widths) == pytest.approx(2 * 1.96 * 4 * ERROR, rel=0.1)


def test_intervals_of_means_hold_the_planted_mean() -> None:
    generator = np.random.default_rng(0)
    inside = []
    sizes = replace(EXACT, score_error=(ERROR / (5 * 0.01)) ** 2)
    for _ in range(300):
        scores = generator.normal(scale=0.01, size=(20, N))
        errors = generator.normal(scale=ERROR, size=(20, N))
        some_rows = generator.choice(N, 16, replace=False)
        chosen = scores[:, some_rows]
        units = units_of(5, sizes, np.square(scores).mean(axis=1))
        found = changes(chosen.sum(axis=1), squares(chosen), 16, units, slice(None))
        mean = found.mean(np.arange(20))
        actual = -(5 * chosen.sum(axis=1) + errors[:, some_rows].sum(axis=1)).mean()
        inside.append(mean.low <= actual <= mean.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.04)


def test_vague_slopes_widen_intervals_and_are_not_averaged_out() -> None:
    covariance = ((0.01, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.0))
    units = units_of(4, replace(EXACT, covariance=covariance), np.full(10_000, 1e-9))
    one = removal(np.array([0.2, 0.3]), units, 0)
    # Both slopes have a standard deviation of a tenth; a part of the change needs neither.
    part = 1 - 2 / (N / 2)
    assert one.high - one.mean == pytest.approx(1.96 * 0.1 * 2 * part, rel=1e-3)
    totals = np.full(10_000, 0.5)
    found = changes(totals, np.full(10_000, 0.13), 2, units, slice(None))
    mean = found.mean(np.arange(10_000))
    assert (mean.mean, mean.high) == pytest.approx((one.mean, one.high))
    opposite = changes(
        np.tile([0.5, -0.5], 5_000), np.full(10_000, 0.13), 2, units, slice(None)
    ).mean(np.arange(10_000))
    assert opposite.high == pytest.approx(0, abs=1e-12)


def test_examples_that_were_chosen_have_effects_of_another_size() -> None:
    sizes = replace(EXACT, ordinary=0.5, chosen=0.7, growth=0.1)
    units = units_of(1, sizes, np.full(2, 1e-4))
    spread = np.sqrt(20 * 1e-4)
    random, strong = np.full(20, 0.1 * spread / 20), np.full(20, 0.1)
    fraction = 20 / (N / 2)
    ordinary = fraction + (1 - fraction) * 0.5
    assert removal(random, units, 0).mean == pytest.approx(-random.sum() * ordinary, rel=0.01)
    chosen = fraction + (1 - fraction) * (0.7 + 0.1 * np.log(3))
    assert removal(strong, units, 1).mean == pytest.approx(-2 * chosen, rel=0.02)


def test_half_of_the_data_is_like_a_random_subset() -> None:
    sizes = replace(EXACT, ordinary=0.2, chosen=3.0)
    units = units_of(2, sizes, np.full(1, 1e-4))
    half = np.random.default_rng(0).normal(size=N // 2)
    assert removal(half, units, 0).mean == pytest.approx(-2 * half.sum())


@given(seed=some.integers(0, 2**16), k=some.integers(1, 20))
def test_many_at_once_are_each_by_itself(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    scores, tests = generator.normal(size=(5, k)), generator.permutation(5)
    covariance = ((0.01, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, 0.0, 0.03))
    sizes = EffectSizes(0.5, 0.7, 0.1, covariance, 0.5, 0.1, 9)
    units = units_of(3, sizes, generator.random(5))
    found = changes(scores.sum(axis=1), squares(scores), k, units, tests)
    change, reach = removals(scores, units, tests)
    for row in range(5):
        one = removal(scores[row], units, int(tests[row]))
        for mean, half in (
            (found.change[row], found.reach[row]),
            (change[row, -1], reach[row, -1]),
        ):
            assert one.mean == pytest.approx(mean, abs=1e-9)
            assert one.high - one.mean == pytest.approx(half, abs=1e-9)
