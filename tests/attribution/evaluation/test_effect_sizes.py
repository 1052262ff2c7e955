"""Sizes of effects: recovered from planted ones; and the removals they are fitted to."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from engine.attribution.evaluation.calibration import NINETY
from engine.attribution.evaluation.effect_sizes import (
    EffectSizes,
    Removal,
    basis,
    fit_sizes,
    moderated_variance,
    score_error,
)
from engine.attribution.evaluation.removal_plan import MOST, plan_removal

N_TRAIN, N_TEST = 2000, 300
NONE = ((0.0, 0.0, 0.0),) * 3
TRUE = EffectSizes(0.6, 0.7, 0.3, NONE, score_error=0.4, chosen_error=0.02, removals=0)


class World:
    """Heavy-tailed scores, and outputs whose changes follow the model with the sizes `TRUE`."""

    def __init__(self, sizes: EffectSizes = TRUE, seed: int = 0, noise: float = 0.3) -> None:
        self.generator = np.random.default_rng(seed)
        self.sizes = sizes
        self.noise = noise**2 * self.generator.gamma(4, 1 / 4, size=N_TEST)
        self.scores = 0.01 * self.generator.standard_t(3, size=(N_TEST, N_TRAIN))
        self.order = np.argsort(-self.scores, axis=1)
        self.level = np.square(self.scores).mean(axis=1)

    def removal(self, rows: np.ndarray) -> Removal:
        scores, count = self.scores[:, rows], np.full(N_TEST, len(rows))
        squares = np.square(scores).sum(axis=1)
        return Removal.of(1.0, scores.sum(axis=1), squares, self.level, count, N_TRAIN, 0.5)

    def expected(self, removal: Removal) -> np.ndarray:
        """The model's formulas once more, so that the code under test is not its own truth."""
        true, t, spread = self.sizes, removal.total, removal.count * removal.level
        w = t**2 / (t**2 + 9 * spread)
        f = removal.count / (N_TRAIN / 2)
        slope = (1 - w) * true.ordinary + w * (true.chosen + true.growth * np.log(1 + np.abs(t)))
        ordinary = true.ordinary**2 * true.score_error * spread
        variance = (1 - w) * ordinary + w * true.chosen_error * (t**2 + 4 * removal.squares)
        error = np.sqrt(variance) * self.generator.normal(size=N_TEST)
        change: np.ndarray = -t * (f + (1 - f) * slope) + error
        return change

    def fit(self, runs: int) -> EffectSizes:
        classes = np.arange(N_TRAIN) % 10
        plans = [plan_removal(self.order[:, :50], classes, 0, n) for n in range(runs)]
        removals = [self.removal(plan.rows) for plan in plans]
        changes = [
            self.expected(one) + np.sqrt(self.noise) * self.generator.normal(size=N_TEST)
            for one in removals
        ]
        targets = [plan.targets for plan in plans]
        found = fit_sizes(removals, changes, targets, self.noise, self.sizes.score_error)
        assert found is not None
        return found


@pytest.mark.parametrize("ordinary", [0.4, 1.2])
@pytest.mark.parametrize("growth", [0.0, 0.4])
def test_planted_slopes_are_found(ordinary: float, growth: float) -> None:
    found = World(replace(TRUE, ordinary=ordinary, growth=growth), seed=1).fit(40)
    truth = np.array([ordinary, 0.7, growth])
    errors = np.sqrt(np.diag(found.covariance))
    assert (np.abs(found.slopes - truth) < 3.5 * errors).all()
    assert (errors < 0.15).all()


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("runs", [8, 40])
def test_intervals_hold_nine_of_ten_new_changes(runs: int, noise: float) -> None:
    inside: dict[str, list[float]] = {"random": [], "chosen": []}
    for seed in range(10):
        world = World(seed=seed, noise=noise)
        found = world.fit(runs)
        covariance = np.array(found.covariance)
        for k in (1, 5, 20, 50):
            for kind, held in inside.items():
                for test in world.generator.permutation(N_TEST)[:12]:
                    rows = world.order[test, :k]
                    if kind == "random":
                        rows = world.generator.permutation(N_TRAIN)[:k]
                    removal = world.removal(rows)
                    offset, derivatives = basis(removal)
                    own, shared = found.variances(removal)
                    variance = own + shared
                    variance += np.einsum("ni,ij,nj->n", derivatives, covariance, derivatives)
                    error = world.expected(removal) - offset - derivatives @ found.slopes
                    one = [test] if kind == "chosen" else slice(None)
                    held.append(float((error**2 < NINETY**2 * variance)[one].mean()))
    assert 0.85 < np.mean(inside["random"]) < 0.95
    assert 0.8 < np.mean(inside["chosen"]) < 0.99  # a few runs tell little about the error's size


def test_variances_by_hand() -> None:
    """Two examples with effects 3 and 1, which look chosen with w = 16 / (16 + 9 · 2 · 8) = .1."""
    two = Removal.of(2.0, *np.array([[2.0], [2.5], [2.0]]), 2, N_TRAIN, 0.5)
    own, shared = TRUE.variances(two)
    assert own == pytest.approx(0.9 * 0.6**2 * 0.4 * 2 * 8 + 0.1 * 0.02 * 4 * (3**2 + 1))
    assert shared == pytest.approx(0.1 * 0.02 * (3 + 1) ** 2)


def test_too_few_removals_give_no_sizes() -> None:
    with pytest.raises(AssertionError):
        World().fit(2)


def test_removals_without_scores_give_no_sizes() -> None:
    nothing = np.zeros(N_TEST)
    removal = Removal(nothing, nothing, nothing, np.ones(N_TEST), nothing)
    noise, targets = np.ones(N_TEST), np.arange(20)
    assert fit_sizes([removal] * 5, [noise] * 5, [targets] * 5, noise, 0.1) is None


def test_sizes_survive_json() -> None:
    found = World().fit(8)
    assert EffectSizes.from_dict(json.loads(json.dumps(asdict(found)))) == found


def test_score_error_is_the_planted_one() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(50, N_TRAIN))
    errors = 0.7 * generator.normal(size=scores.shape)
    masks = generator.random((200, N_TRAIN)).argsort(axis=1) < N_TRAIN // 2
    outputs = errors @ masks.T + 5 * generator.normal(size=(50, 200))
    level, noise = np.square(scores).mean(axis=1), np.full(50, 25.0)
    found = score_error(outputs.var(axis=1, ddof=1), noise, level, N_TRAIN / 4)
    assert found == pytest.approx(0.49, rel=0.1)
    assert score_error(noise / 2, noise, level, N_TRAIN / 4) == 0
    assert score_error(noise, noise, np.zeros(50), N_TRAIN / 4) == 0


def test_variances_from_few_seeds_are_drawn_toward_their_mean() -> None:
    generator = np.random.default_rng(0)
    truth = generator.gamma(4, 1 / 4, size=4000)
    outputs = np.sqrt(truth) * generator.normal(size=(5, 4000))
    found = moderated_variance(outputs)
    plain = outputs.var(axis=0, ddof=1)
    assert found.mean() == pytest.approx(plain.mean())
    assert np.mean((found - truth) ** 2) < 0.5 * np.mean((plain - truth) ** 2)
    assert moderated_variance(outputs[:1]).tolist() == [0.0] * 4000


@settings(deadline=None)
@given(
    seed=some.integers(0, 99),
    n_train=some.integers(4, 300),
    n_classes=some.integers(1, 4),
    k=some.integers(1, 60),
    missing=some.floats(0, 1),
)
def test_plans_are_small_and_keep_every_class(
    seed: int, n_train: int, n_classes: int, k: int, missing: float
) -> None:
    generator = np.random.default_rng(seed)
    classes = np.arange(n_train) % n_classes
    top = np.argsort(generator.random((30, n_train)), axis=1)[:, : min(k, n_train)]
    top = np.where(generator.random(top.shape) < missing, -1, top)
    top = -np.sort(-np.where(top < 0, -1, top), axis=1)  # −1 comes last
    plan = plan_removal(top, classes, seed, 3)
    again = plan_removal(top, classes, seed, 3)
    assert plan.rows.tolist() == again.rows.tolist()
    assert len(plan.rows) <= max(1, int(MOST * n_train))
    assert (np.diff(plan.rows) > 0).all()
    assert set(np.delete(classes, plan.rows)) == set(classes)
    assert len(set(plan.targets)) == len(plan.targets)
    for test in plan.targets:
        assert top[test, 0] in plan.rows
