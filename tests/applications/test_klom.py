"""KLoM: what the definition says, by another solver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine import DataloupeError
from engine.applications.unlearning.klom import (
    BINS,
    SMOOTHING,
    Direction,
    at_half,
    ceiling,
    floor,
    halves,
    klom,
    normal_divergence,
    summary,
)


def by_scipy(unlearned: np.ndarray, oracle: np.ndarray, direction: Direction) -> list[float]:
    """One example after the other, with numpy's histogram and scipy's entropy."""
    found = []
    for u, o in zip(unlearned.T, oracle.T, strict=True):
        edges = np.histogram_bin_edges(np.concatenate([u, o]), BINS)
        p, q = (np.histogram(one, edges)[0] / len(one) + SMOOTHING for one in (u, o))
        found.append(
            stats.entropy(p, q) if direction == "unlearned-oracle" else stats.entropy(q, p)
        )
    return found


@pytest.mark.parametrize("direction", ["unlearned-oracle", "oracle-unlearned"])
@pytest.mark.parametrize(("models", "oracles"), [(50, 50), (7, 100), (1, 1)])
def test_it_is_what_scipy_says(direction: Direction, models: int, oracles: int) -> None:
    generator = np.random.default_rng(models)
    unlearned = generator.normal(0.4, 1.5, (models, 200))
    oracle = generator.normal(0, 1, (oracles, 200))
    found = klom(unlearned=unlearned, oracle=oracle, direction=direction)
    np.testing.assert_allclose(found, by_scipy(unlearned, oracle, direction), atol=1e-12)


def test_directions_differ_and_the_first_is_kl_of_unlearned_from_oracle() -> None:
    unlearned = np.repeat(np.linspace(0, 0.2, 50)[:, None], 1, axis=1)
    oracle = np.linspace(0, 1, 50)[:, None]
    narrow = klom(unlearned=unlearned, oracle=oracle)
    wide = klom(unlearned=unlearned, oracle=oracle, direction="oracle-unlearned")
    assert wide[0] > 3 * narrow[0]  # the oracles are where unlearned models never are
    np.testing.assert_allclose(narrow, by_scipy(unlearned, oracle, "unlearned-oracle"))


def test_identical_models_have_none_and_disjoint_ones_the_ceiling() -> None:
    oracle = np.random.default_rng(0).normal(size=(50, 30))
    assert klom(unlearned=oracle, oracle=oracle[::-1]).max() < 1e-12
    low, high = np.zeros((50, 3)), np.ones((50, 3))
    for one, other in ((low, high), (high, low)):
        np.testing.assert_allclose(klom(unlearned=one, oracle=other), ceiling())
    assert ceiling() == pytest.approx(11.51, abs=0.01)
    assert klom(unlearned=low, oracle=low).tolist() == [0, 0, 0]


def test_a_constant_overshoot_above_the_oracles_counts_in_full() -> None:
    """Where bins end at the oracles' largest margin, and it is dropped, this scores a perfect 0."""
    oracle = np.random.default_rng(1).uniform(0, 1, (50, 4))
    for overshoot in (1.5, 20.0, 1e6):
        found = klom(unlearned=np.full((50, 4), overshoot), oracle=oracle)
        np.testing.assert_allclose(found, ceiling(), rtol=1e-3)
    top = np.full((50, 4), oracle.max(axis=0))  # on the edge itself
    assert klom(unlearned=top, oracle=oracle).min() > 1


MARGINS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=12)


@settings(max_examples=100, deadline=None)
@given(MARGINS, MARGINS, st.floats(0.25, 8), st.integers(-64, 64))
def test_it_lies_between_none_and_the_ceiling_and_knows_no_order(
    one: list[float], other: list[float], scale: float, shift: int
) -> None:
    unlearned, oracle = np.array(one)[:, None], np.array(other)[:, None]
    found = klom(unlearned=unlearned, oracle=oracle)
    assert 0 <= found[0] <= ceiling() + 1e-9
    assert klom(unlearned=unlearned[::-1], oracle=oracle[::-1])[0] == found[0]
    mirrored = klom(unlearned=oracle, oracle=unlearned, direction="oracle-unlearned")
    assert mirrored[0] == found[0]


def test_the_floor_is_what_perfect_models_score_with_as_many() -> None:
    generator = np.random.default_rng(2)
    oracle, perfect = generator.normal(size=(2, 100, 400))
    level = floor(oracle).mean()
    assert at_half(unlearned=perfect, oracle=oracle).mean() == pytest.approx(level, rel=0.05)
    assert klom(unlearned=perfect, oracle=oracle).mean() < level  # more models, less noise
    for first, second in halves(9):
        assert len(first) == len(second) == 4
        assert not set(first) & set(second)


def test_summaries_hold_the_truth() -> None:
    values = np.random.default_rng(3).exponential(size=500)
    found = summary(values, 50)
    assert found.mean.mean == pytest.approx(values.mean())
    assert found.p95.mean == pytest.approx(np.quantile(values, 0.95))
    assert found.mean.low < found.mean.mean < found.mean.high < found.p95.low
    reach = 1.96 * values.std() / np.sqrt(500)
    assert found.mean.high - found.mean.mean == pytest.approx(reach, rel=0.15)


def test_the_normal_divergence_is_the_closed_form() -> None:
    u, o = np.random.default_rng(4).normal(size=(2, 4000, 1)) * [[[0.5]], [[1]]] + [[[1.0]], [[0]]]
    wanted = np.log(1 / 0.5) + (0.25 + 1) / 2 - 0.5
    assert normal_divergence(unlearned=u, oracle=o)[0] == pytest.approx(wanted, rel=0.1)
    assert normal_divergence(unlearned=u + 1e6, oracle=o)[0] == pytest.approx(ceiling())


@pytest.mark.parametrize(
    ("unlearned", "oracle", "says"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), "same examples"),
        (np.zeros((0, 3)), np.zeros((2, 3)), "unlearned margins"),
        (np.zeros(3), np.zeros((2, 3)), "unlearned margins"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), "oracle margins"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    unlearned: np.ndarray, oracle: np.ndarray, says: str
) -> None:
    with pytest.raises(DataloupeError, match=says):
        klom(unlearned=unlearned, oracle=oracle)
    with pytest.raises(DataloupeError, match="floor"):
        floor(np.zeros((1, 3)))
