"""Average effects: intervals and p-values that hold their level with few checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from engine.applications.modeldiff.effect_estimates import estimate, estimate_difference


def drawn(
    generator: np.random.Generator, m: int, pictures: np.ndarray, by_checkpoint: float
) -> np.ndarray:
    """Changes of one algorithm: `pictures` hold what all its checkpoints share."""
    checkpoints = by_checkpoint * generator.normal(size=(m, 1))
    return pictures + checkpoints + generator.normal(size=(m, len(pictures)))


@pytest.mark.parametrize("m", [2, 3, 5, 10])
@pytest.mark.parametrize("by_checkpoint", [0.1, 1.0])
def test_equal_algorithms_differ_at_the_nominal_rate(m: int, by_checkpoint: float) -> None:
    generator = np.random.default_rng(m)
    found = 0
    repeats = 1500
    for _ in range(repeats):
        pictures = generator.normal(size=30)
        a, b = (drawn(generator, m, pictures, by_checkpoint) for _ in "ab")
        p = estimate_difference(a, b).p_value()
        assert p is not None
        found += p < 0.05
    assert 0.015 < found / repeats < 0.075


@pytest.mark.parametrize("m", [2, 3, 5])
def test_intervals_hold_the_mean_of_all_models_and_pictures(m: int) -> None:
    generator = np.random.default_rng(m)
    inside = 0
    for _ in range(1500):
        pictures = 0.7 + 2 * generator.normal(size=40)
        found = estimate(drawn(generator, m, pictures, 0.3)).interval()
        inside += found.low < 0.7 < found.high
    assert 0.92 < inside / 1500 < 0.985


def test_without_pictures_to_vary_it_is_welchs_test() -> None:
    """Changes that differ by checkpoint only: the test is Welch's over the checkpoints' means."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(4, 1)), 0.5 + 2 * generator.normal(size=(7, 1))
    found = estimate_difference(np.repeat(a, 9, axis=1), np.repeat(b, 9, axis=1))
    expected = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False)
    assert found.p_value() == pytest.approx(float(expected.pvalue))
    low, high = expected.confidence_interval(0.95)
    assert found.interval().low == pytest.approx(float(low))
    assert found.interval().high == pytest.approx(float(high))


def test_a_difference_is_found() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.normal(size=100)
    a, b = drawn(generator, 5, pictures, 0.1), drawn(generator, 5, pictures + 1, 0.1)
    p = estimate_difference(a, b).p_value()
    assert p is not None
    assert p < 1e-3


@pytest.mark.parametrize(("m_a", "m_b"), [(1, 1), (1, 5), (5, 1)])
def test_nothing_is_concluded_from_one_checkpoint(m_a: int, m_b: int) -> None:
    generator = np.random.default_rng(0)
    pictures = generator.normal(size=50)
    a, b = drawn(generator, m_a, pictures, 0.1), drawn(generator, m_b, pictures + 5, 0.1)
    found = estimate_difference(a, b)
    assert found.p_value() is None
    assert found.mean == pytest.approx(-5, abs=1)


def test_the_same_changes_do_not_differ() -> None:
    same = np.random.default_rng(0).normal(size=(3, 10))
    assert estimate_difference(same, same).p_value() == pytest.approx(1)
    nothing = np.zeros((2, 10))
    assert estimate_difference(nothing, nothing).p_value() == pytest.approx(1)
