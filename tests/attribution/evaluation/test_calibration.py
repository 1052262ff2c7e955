"""Calibration: planted slopes are found, and their intervals hold them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from engine.attribution.evaluation.calibration import calibrate
from engine.store.errors import DataError


def planted(seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    predicted = random.normal(size=(50, 40))
    levels = random.normal(scale=20, size=(50, 1))
    return predicted, levels + 7 * predicted + noise * random.normal(size=(50, 40))


def test_a_planted_slope_is_found_whatever_the_levels() -> None:
    predicted, actual = planted(0)
    found = calibrate(predicted, actual)
    assert found is not None
    assert found.slope == pytest.approx(7, abs=0.1)
    assert found.low < 7 < found.high
    centred = [array - array.mean(axis=1, keepdims=True) for array in (predicted, actual)]
    line = stats.linregress(centred[0].ravel(), centred[1].ravel())
    assert found.slope == pytest.approx(line.slope)
    assert found.r_squared == pytest.approx(line.rvalue**2, abs=1e-6)


def test_the_interval_has_its_nominal_coverage() -> None:
    found = [calibrate(*planted(seed, noise=20), resamples=100) for seed in range(60)]
    inside = [one is not None and one.low < 7 < one.high for one in found]
    assert 0.85 <= np.mean(inside) <= 1


def test_predictions_that_do_not_vary_have_no_slope_and_bad_ones_are_refused() -> None:
    predicted, actual = planted(0)
    assert calibrate(np.zeros_like(predicted), actual) is None
    with pytest.raises(DataError, match="do not fit together"):
        calibrate(predicted[:, :2], actual[:, :2])
    predicted[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        calibrate(predicted, actual)
