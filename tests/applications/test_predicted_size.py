"""The factor on predicted changes of token log-odds, from models without the validation set."""

from __future__ import annotations

import numpy as np
import pytest

from engine.applications.unlearning.predicted_size import LEAST, MOST, slope


def test_the_factor_is_the_slope_of_actual_changes() -> None:
    predicted = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) - 1
    noise = np.random.default_rng(1).normal(size=(40, 3)) * 0.1
    assert slope(predicted, 1.7 * predicted + noise) == pytest.approx(1.7, abs=0.05)


def test_a_small_validation_set_does_not_turn_changes_around() -> None:
    predicted = np.full((2, 1), -1.0)
    assert slope(predicted, -predicted) == LEAST
    assert slope(predicted, 100 * predicted) == MOST
    assert slope(np.zeros((2, 1)), predicted) == 1
