"""Tests over models: nominal rates where nothing differs, and power where it does."""

from __future__ import annotations

import numpy as np
import pytest

from engine.applications.unlearning.klom import DIRECTION
from engine.applications.unlearning.model_tests import (
    membership_attack,
    p_closer,
    p_differs,
    remembered,
    share_of_way,
)


def models(
    generator: np.random.Generator, count: int, n: int = 40, shared: float = 1.0
) -> np.ndarray:
    """Margins of models whose examples share a factor: one model is better on all of them."""
    factor = shared * generator.normal(size=(count, 1))
    return generator.normal(size=(count, n)) + factor


@pytest.mark.parametrize("count", [10, 20])
def test_models_that_forgot_perfectly_differ_at_the_nominal_rate(count: int) -> None:
    found = []
    for seed in range(90):
        generator = np.random.default_rng(seed)
        found.append(p_differs(*(models(generator, count) for _ in "ab"), DIRECTION))
    assert 0.0 <= np.mean(np.array(found) <= 0.05) < 0.12
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_equal_methods_are_called_different_at_the_nominal_rate() -> None:
    found = []
    for seed in range(90):
        generator = np.random.default_rng(seed)
        start = 2 * generator.normal(size=(10, 1))  # both methods start from the same originals
        one, other = (start + models(generator, 10) for _ in "ab")
        found.append(p_closer(one, other, models(generator, 10), DIRECTION))
    assert 0.0 <= np.mean(np.array(found) <= 0.05) < 0.12


def test_differences_are_found() -> None:
    generator = np.random.default_rng(0)
    oracle, original = models(generator, 20), models(generator, 20) + 3
    near = models(generator, 20) + 0.5
    assert p_differs(original, oracle, DIRECTION) <= 0.01
    assert p_closer(near, original, oracle, DIRECTION) <= 0.01
    assert p_closer(original, near, oracle, DIRECTION) >= 0.95


def test_the_share_of_the_way() -> None:
    generator = np.random.default_rng(1)
    oracle, perfect = models(generator, 40, 400, 0.2), models(generator, 40, 400, 0.2)
    original = models(generator, 40, 400, 0.2) + 3
    nothing = share_of_way(original, original, oracle, DIRECTION)
    all_of_it = share_of_way(perfect, original, oracle, DIRECTION)
    some = share_of_way(perfect + 1, original, oracle, DIRECTION)
    assert nothing is not None
    assert all_of_it is not None
    assert some is not None
    assert nothing.mean == 0
    assert all_of_it.mean == pytest.approx(1, abs=0.03)
    assert 0.3 < some.mean < 0.95
    assert some.low < some.mean < some.high
    assert share_of_way(perfect, oracle, oracle, DIRECTION) is None


def test_its_interval_holds_the_share_of_new_models() -> None:
    """The truth is taken from many models; intervals are made from 20."""

    def margins(generator: np.random.Generator, count: int, off: float) -> np.ndarray:
        return models(generator, count, 60, 0.3) + off

    generator = np.random.default_rng(2)
    shares = []
    for _ in range(60):
        drawn = share_of_way(*(margins(generator, 20, off) for off in (1.0, 3.0, 0.0)), DIRECTION)
        assert drawn is not None
        shares.append(drawn)
    truth = np.mean([one.mean for one in shares])
    assert np.mean([one.low < truth < one.high for one in shares]) > 0.85


def test_the_attack_has_no_advantage_on_perfect_unlearning() -> None:
    found = []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        found.append(membership_attack(*(models(generator, 12) for _ in "ab")))
    means = np.array([one.mean for one in found])
    assert abs(means.mean()) < 3 * means.std() / 10
    inside = np.mean([one.low < 0 < one.high for one in found])
    assert inside > 0.88


def test_the_attack_finds_what_is_left() -> None:
    generator = np.random.default_rng(3)
    oracle, original = models(generator, 20, 50, 0), models(generator, 20, 50, 0) + 3
    found = membership_attack(original, oracle)
    assert found.mean > 0.8
    # Spread alone gives models away, too.
    assert membership_attack(5 * models(generator, 20, 50, 0), oracle).low > 0.2


def test_examples_that_are_remembered() -> None:
    generator = np.random.default_rng(4)
    oracle, unlearned = models(generator, 20, 100, 0), models(generator, 20, 100, 0)
    unlearned[:, :10] += 3
    found = remembered(unlearned, oracle)
    assert set(range(10)) <= set(found.tolist())
    assert len(found) <= 12
    assert len(remembered(oracle, oracle)) == 0
    assert len(remembered(np.zeros((4, 3)), np.zeros((4, 3)))) == 0
