"""Sets chosen together, against ridge regression without them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.attribution.trak.joint_removal import RemovalSystem, effect_together, strongest_first

N, P, RIDGE = 40, 10, 2.0


class Ridge:
    """A weighted ridge regression with four near copies of one example, and its prediction."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.x = generator.normal(size=(N, P))
        self.x[5:9] = self.x[4] + 0.05 * generator.normal(size=(4, P))
        self.y = generator.normal(size=N)
        self.y[4:9] = 1.0
        self.weights = generator.uniform(0.5, 2, N)
        self.test = self.x[4] + 0.3 * generator.normal(size=P)

    def prediction(self, without: np.ndarray) -> float:
        kept = np.setdiff1d(np.arange(N), without)
        x, w = self.x[kept], self.weights[kept]
        hessian = (x * w[:, None]).T @ x + RIDGE * np.eye(P)
        return float(self.test @ np.linalg.solve(hessian, x.T @ (w * self.y[kept])))

    def fall(self, without: np.ndarray) -> float:
        return self.prediction(np.empty(0, np.int64)) - self.prediction(without)

    def falls(self, order: np.ndarray) -> list[float]:
        return [self.fall(order[: k + 1]) for k in range(len(order))]

    @property
    def inverse(self) -> np.ndarray:
        found: np.ndarray = np.linalg.inv((self.x.T * self.weights) @ self.x + RIDGE * np.eye(P))
        return found

    @property
    def gradients(self) -> np.ndarray:
        """Factors of the training gradients, which are `gradients * x`."""
        fitted = self.inverse @ self.x.T @ (self.weights * self.y)
        found: np.ndarray = self.weights * (self.y - self.x @ fitted)
        return found

    def system(self) -> RemovalSystem:
        return RemovalSystem(
            products=lambda rows: self.x @ self.inverse @ self.x[rows].T,
            test=self.x @ self.inverse @ self.test,
            curvature=np.arange(N)[:, None],
            scale=np.sqrt(self.weights),
        )

    def with_rows(self) -> RemovalSystem:
        """The same, with several rows of H an example: together they are what one row was."""
        shares = np.array([0.2, 0.3, 0.5])
        rows = np.concatenate(
            [self.x, *(np.sqrt(self.weights * part)[:, None] * self.x for part in shares)]
        )
        return RemovalSystem(
            products=lambda some: rows @ self.inverse @ rows[some].T,
            test=rows @ self.inverse @ self.test,
            curvature=np.arange(N)[:, None] + N * np.arange(1, 4),
            scale=np.ones(N),
        )


MAKES = (Ridge.system, Ridge.with_rows)


@pytest.mark.parametrize("make", MAKES)
def test_effects_are_those_of_the_regression_without_the_set(
    make: Callable[[Ridge], RemovalSystem],
) -> None:
    ridge = Ridge(0)
    order = np.random.default_rng(1).permutation(N)[:12]
    found = effect_together([make(ridge)], ridge.gradients, order)
    np.testing.assert_allclose(found, ridge.falls(order), rtol=1e-8)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("make", MAKES)
def test_each_is_the_strongest_of_the_regression_without_those_before(
    make: Callable[[Ridge], RemovalSystem], sign: int
) -> None:
    ridge = Ridge(2)
    chosen, reached = strongest_first([make(ridge)], ridge.gradients, 12, sign)
    np.testing.assert_allclose(reached, ridge.falls(chosen), rtol=1e-8)
    assert len(set(chosen)) == 12
    for k, one in enumerate(chosen):
        kept = np.setdiff1d(np.arange(N), chosen[:k])
        x, w = ridge.x[kept], ridge.weights[kept]
        hessian = (x.T * w) @ x + RIDGE * np.eye(P)
        scores = ridge.gradients[kept] * (x @ np.linalg.solve(hessian, ridge.test))
        assert kept[np.argmax(sign * scores)] == one


def test_they_do_more_than_the_strongest_one_by_one() -> None:
    """On average: one at a time can lose against them, so callers compare both."""
    ratios = []
    for seed in range(20):
        ridge = Ridge(seed)
        chosen, _ = strongest_first([ridge.system()], ridge.gradients, 5)
        alone = np.argsort(-ridge.gradients * ridge.system().test)[:5]
        ratios.append(ridge.fall(chosen) / ridge.fall(alone))
    assert np.mean(ratios) >= 1.05


def test_several_checkpoints_count_by_their_mean() -> None:
    one, other = Ridge(3), Ridge(4)
    q = one.gradients
    order, _ = strongest_first([one.system(), other.system()], q, 6)
    scores = [q * ridge.system().test for ridge in (one, other)]
    assert order[0] == np.argmax(np.mean(scores, axis=0))
    parts = [effect_together([ridge.system()], q, order) for ridge in (one, other)]
    both = effect_together([one.system(), other.system()], q, order)
    np.testing.assert_allclose(both, np.mean(parts, axis=0), rtol=1e-9)


def test_it_ends_where_nothing_more_is_on_that_side() -> None:
    ridge = Ridge(5)
    assert len(strongest_first([ridge.system()], ridge.gradients, N)[0]) < N


def test_systems_are_not_changed() -> None:
    system = Ridge(6).system()
    kept = system.test.copy()
    strongest_first([system], Ridge(6).gradients, 5)
    effect_together([system], Ridge(6).gradients, [1, 2])
    assert np.array_equal(system.test, kept)


def test_what_a_stronger_example_hides_is_found() -> None:
    """The second example opposes most of all, until the first one is gone: then it is the one that
    supports. So all examples are candidates, not those that support at first."""
    x = np.array([[0.5, 2.0], [1.4, 0.5], [-0.3, -0.1], [0.6, 0.1]])
    inverse = np.linalg.inv(x.T @ x + 0.1 * np.eye(2))
    system = RemovalSystem(
        products=lambda rows: x @ inverse @ x[rows].T,
        test=x @ inverse @ np.array([-0.8, 2.0]),
        curvature=np.arange(4)[:, None],
        scale=np.ones(4),
    )
    assert np.argsort(system.test).tolist() == [1, 3, 2, 0]
    assert strongest_first([system], np.ones(4), 2)[0].tolist() == [0, 1]
