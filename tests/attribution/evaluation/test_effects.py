"""The predicted effect of removals, against a planted linear model."""

from __future__ import annotations

import numpy as np
import pytest

from engine.attribution.evaluation.effects import removal
from engine.attribution.evaluation.quality import Measured

N, ALPHA, ERROR = 400, 0.5, 0.03


def test_intervals_hold_the_planted_change() -> None:
    generator = np.random.default_rng(0)
    inside, widths = [], []
    for _ in range(400):
        scores = generator.normal(scale=0.01, size=N)
        weights = 5.0 * scores + generator.normal(scale=ERROR, size=N)
        masks = generator.random((100, N)).argsort(axis=1) < ALPHA * N
        residuals = masks @ (weights - 5.0 * scores)
        removed = generator.choice(N, 16, replace=False)
        found = removal(scores[removed], Measured(5, 5, 5), residuals, N, ALPHA, targeted=0)
        inside.append(found.low <= -weights[removed].sum() <= found.high)
        widths.append(found.high - found.low)
        assert found.mean == pytest.approx(-5 * scores[removed].sum())
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert np.median(widths) == pytest.approx(2 * 1.96 * 4 * ERROR, rel=0.05)


def test_a_vague_slope_widens_the_interval() -> None:
    scores, none = np.array([0.2, 0.3]), np.zeros(10)
    found = removal(scores, Measured(4, 3, 5), none, N, ALPHA, targeted=0)
    assert found == Measured(-2, -2.5, -1.5)
    found = removal(-scores, Measured(4, 3, 5), none, N, ALPHA, targeted=0)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 1.5, 2.5))


def test_a_removal_that_is_not_random_is_less_certain() -> None:
    scores, sure = np.array([0.2, 0.3]), Measured(4, 4, 4)
    found = removal(scores, sure, np.zeros(10), N, ALPHA, targeted=0.5)
    assert (found.mean, found.low, found.high) == pytest.approx((-2, -3.96, -0.04))
