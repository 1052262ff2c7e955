"""The noise ceiling is the LDS that the true means reach, from pure noise to almost none."""

from __future__ import annotations

import numpy as np
import pytest

from engine.attribution.evaluation.ceiling import (
    LEAST_MASKS,
    RepeatedRuns,
    expected_spearman,
    noise_ceiling,
)
from engine.attribution.evaluation.lds import spearman

N_TEST = 120


def planted(
    generator: np.random.Generator, masks: int, runs: int, signal: float, uneven: float
) -> tuple[np.ndarray, np.ndarray]:
    """True means `[n_test, masks]` of planted datamodels, and outputs `[n_test, masks, runs]`.

    Half of a run's noise is common to all test examples, as a model is good or bad at a whole.

    Args:
        signal: Variance of the true means over masks, with noise of variance 1.
        uneven: How much the size of the signal differs between test examples.
    """
    weights = generator.normal(size=(N_TEST, 20)) / np.sqrt(20)
    truth = weights @ generator.normal(size=(20, masks))
    truth *= np.sqrt(signal) * np.exp(uneven * generator.normal(size=(N_TEST, 1)))
    factors = generator.normal(size=(N_TEST, 5)) / np.sqrt(5)
    noise = np.einsum("nk,kms->nms", factors, generator.normal(size=(5, masks, runs)))
    noise += generator.normal(size=noise.shape)
    return truth, truth[:, :, None] + noise / np.sqrt(2)


def repeated(outputs: np.ndarray) -> RepeatedRuns:
    """The runs as the study keeps them, from `[n_test, masks, runs]`."""
    means = outputs.mean(axis=2)
    squares = ((outputs - means[:, :, None]) ** 2).sum(axis=2)
    return RepeatedRuns(means.T, squares.T, np.full(outputs.shape[1], outputs.shape[2]))


@pytest.mark.parametrize("uneven", [0.0, 0.7])
@pytest.mark.parametrize("signal", [0.1, 0.3, 1.0, 4.0, 50.0])
@pytest.mark.parametrize(("masks", "runs"), [(40, 2), (40, 5), (100, 3), (200, 2)])
def test_the_ceiling_is_what_the_true_means_reach(
    masks: int, runs: int, signal: float, uneven: float
) -> None:
    generator = np.random.default_rng(0)
    estimated, reached = [], []
    for _ in range(24 if signal > 0.1 else 100):  # near 0 a single estimate is off by 0.1
        truth, outputs = planted(generator, masks, runs, signal, uneven)
        found = noise_ceiling(repeated(outputs))
        assert found is not None
        estimated.append(found.mean)
        reached.append(spearman(truth, outputs.mean(axis=2)).mean())
    assert np.mean(estimated) == pytest.approx(np.mean(reached), abs=0.02)


@pytest.mark.parametrize(("masks", "runs"), [(20, 2), (40, 2), (40, 5), (200, 3)])
def test_on_pure_noise_it_is_0(masks: int, runs: int) -> None:
    generator = np.random.default_rng(1)
    found = [
        noise_ceiling(repeated(planted(generator, masks, runs, 0.0, 0.0)[1])) for _ in range(120)
    ]
    assert all(one is not None for one in found)
    assert np.mean([one.mean for one in found if one]) == pytest.approx(0, abs=0.05)
    above = np.mean([one.low > 0 for one in found if one])
    assert above <= 0.08, "an interval above 0 claims that something can be predicted"


@pytest.mark.parametrize("masks", [8, 40])
@pytest.mark.parametrize("signal", [0.5, 4.0])
def test_intervals_hold_what_the_true_means_reach(masks: int, signal: float) -> None:
    generator, held = np.random.default_rng(2), []
    for _ in range(100):
        truth, outputs = planted(generator, masks, 2, signal, 0.7)
        found = noise_ceiling(repeated(outputs))
        assert found is not None
        held.append(found.low <= spearman(truth, outputs.mean(axis=2)).mean() <= found.high)
    assert np.mean(held) >= 0.88


def test_masks_may_have_different_numbers_of_runs() -> None:
    generator, estimated, reached = np.random.default_rng(3), [], []
    runs = np.where(np.arange(60) % 3, 1, 3)
    for _ in range(24):
        truth, outputs = planted(generator, 60, 3, 1.0, 0.5)
        there = np.arange(3) < runs[:, None]
        means = (outputs * there).sum(axis=2) / runs
        squares = (((outputs - means[:, :, None]) ** 2) * there).sum(axis=2)
        found = noise_ceiling(RepeatedRuns(means.T, squares.T, runs))
        assert found is not None
        estimated.append(found.mean)
        reached.append(spearman(truth, means).mean())
    assert np.mean(estimated) == pytest.approx(np.mean(reached), abs=0.03)


@pytest.mark.parametrize("m", [8, 40])
def test_the_expected_correlation_of_normal_values(m: int) -> None:
    generator = np.random.default_rng(4)
    a, noise = generator.normal(size=(2, 4000, m))
    found = spearman(a, 0.6 * a + 0.8 * noise).mean()
    assert expected_spearman(np.array(0.6), m) == pytest.approx(found, abs=0.01)
    assert expected_spearman(np.array(1.0), m) == pytest.approx(1)


def test_runs_without_noise_can_be_predicted_perfectly() -> None:
    outputs = np.repeat(np.random.default_rng(5).normal(size=(7, 10, 1)), 2, axis=2)
    found = noise_ceiling(repeated(outputs))
    assert found is not None
    assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_outputs_that_never_vary_cannot_be_predicted() -> None:
    found = noise_ceiling(repeated(np.ones((7, 10, 2))))
    assert found is not None
    assert found.mean == 0


def test_one_run_of_each_mask_gives_no_ceiling() -> None:
    outputs = np.random.default_rng(6).normal(size=(7, 30, 1))
    assert noise_ceiling(repeated(outputs)) is None
    assert noise_ceiling(repeated(outputs.reshape(7, 15, 2)[:, : LEAST_MASKS - 1])) is None
