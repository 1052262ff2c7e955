"""The effect of removal on every class logit, against sums of scores and closed forms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.kernel import first_examples
from engine.attribution.trak.linear_system import example_weights
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.new_examples import dual_inverse
from engine.attribution.trak.primal import gram
from engine.attribution.trak.removal_direction import (
    derivative,
    direction,
    dual_coefficients,
    dual_left,
    primal_coefficients,
    primal_left,
    sampled_coefficients,
    together,
)
from engine.attribution.trak.solver import Solver
from tests.attribution.trak.test_solvers import GIB, M, N, batches, cnn, margin, mlp
from tests.builders.exact_gradients import dense_gradients

FORGET = [3, 7, 20]
TEST = batches(M, 5, seed=1)


def logits_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(batch["x"])
    return logits


def weights_of(n: int) -> tuple[Tensor, Tensor]:
    """Q of the training examples, and the weights of those to forget."""
    q = torch.rand(n, generator=torch.Generator().manual_seed(5)) + 0.1
    weights = torch.zeros(n)
    weights[FORGET] = q[FORGET]
    return q, weights


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("curvature", ["gauss-newton", "plain"])
def test_the_derivative_is_the_sum_of_the_scores_of_each_class_logit(make, curvature) -> None:
    torch.manual_seed(0)
    model, shape = make(), (5,) if make is mlp else (1, 8, 8)
    train, test = batches(N, *shape), batches(M, *shape, seed=1)
    plan = plan_gradients(model, margin, first_examples(train))
    solver = Solver("dual-exact", plan.n_parameters, 0, 0.5, "", 0.5, curvature)
    q, weights = weights_of(N)
    inverse, _ = dual_inverse(model, margin, train, plan, solver, 0, GIB, q)
    along = direction(model, margin, train, dual_coefficients(inverse, weights))
    found = derivative(model, logits_of, test(), along)
    for c in range(3):

        def output(model: nn.Module, batch: dict[str, Tensor], c: int = c) -> Tensor:
            return margin(model, batch) if "y" in batch else model(batch["x"])[:, c]

        def one_test() -> Iterator[dict[str, Tensor]]:
            return ({"x": batch["x"]} for batch in test())

        scores = attribute_dual(model, output, train, one_test, solver, 0, GIB, q)
        wanted = scores[:, FORGET] @ q[FORGET]
        torch.testing.assert_close(found[:, c], wanted, rtol=1e-3, atol=1e-4)


def test_both_solvers_agree_where_nothing_is_projected() -> None:
    torch.manual_seed(0)
    model, train = mlp(), batches(N, 5)
    plan = plan_gradients(model, margin, first_examples(train))
    width = plan.n_parameters
    # λ is relative to the mean diagonal over p features there, over n examples here.
    dual = Solver("dual-exact", width, 0, 0.5 * N / width, "", 0.5, "gauss-newton")
    primal = Solver("primal", width, width, 0.5, "", 0.5, "gauss-newton")
    q, weights = weights_of(N)
    blocks = [dense_gradients(model, margin, batch) for batch in train()]
    solved = primal_coefficients(
        lambda: iter(blocks), gram(iter(blocks), primal, q), primal, q, weights
    )
    inverse, ridge = dual_inverse(model, margin, train, plan, dual, 0, GIB, q)
    wanted = dual_coefficients(inverse, weights)
    curvature = example_weights(q, primal)
    assert curvature is not None
    features = torch.cat(blocks)[FORGET]
    torch.testing.assert_close(
        primal_left(features, gram(iter(blocks), primal, q), primal, curvature[FORGET]),
        dual_left(inverse[FORGET][:, FORGET], ridge),
        rtol=2e-3,
        atol=2e-3,
    )
    torch.testing.assert_close(solved, wanted, rtol=2e-3, atol=1e-4 * float(wanted.abs().max()))


def test_the_direction_with_sampled_curvature_solves_with_it() -> None:
    """Φᵀu + Cᵀz = (CᵀC + λI)⁻¹ Φᵀq, with two blocks of 30 and 20 examples and 3 samples of each."""
    generator = torch.Generator().manual_seed(5)
    phi = [torch.randn(n, 12, generator=generator) for n in (30, 20)]
    samples = [torch.randn(3, n, 12, generator=generator) for n in (30, 20)]
    c = [each.flatten(0, 1) / 3**0.5 for each in samples]
    solver = Solver("primal", 12, 12, 0.3, "", 1.0, "sampled", samples=3)
    weights = torch.zeros(50).index_put((torch.tensor(FORGET),), torch.ones(len(FORGET)))
    total = gram(iter(c), solver)
    u, z = sampled_coefficients(lambda: iter(phi), lambda: iter(c), total, solver, weights)
    found = torch.cat(phi).T @ u
    for number, row in enumerate(z):
        found += torch.cat([each[number] for each in samples]).T @ row
    damped = total + 0.3 * total.diagonal().mean() * torch.eye(12)
    wanted = torch.linalg.solve(damped, torch.cat(phi).T @ weights)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_linear_model_is_predicted_exactly() -> None:
    """Ridge regression retrained without F: w − (XᵀX + λ)⁻¹ X_Fᵀ (I − H_F)⁻¹ r_F."""
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(N, 5, generator=generator), torch.randn(N, generator=generator)
    ridge, kept = 2.0, [i for i in range(N) if i not in FORGET]

    def fitted(rows: list[int]) -> Tensor:
        a = x[rows]
        return torch.linalg.solve(a.T @ a + ridge * torch.eye(5), a.T @ y[rows])

    model = nn.Linear(5, 1, bias=False)
    w = fitted(list(range(N)))
    model.weight.data = w[None]

    def output(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["x"])[:, 0]

    def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        value = output(model, batch)
        return torch.stack([value, -3 * value, value * batch["x"][:, 0]], dim=1)

    damping = ridge / float((x @ x.T).diagonal().mean())
    solver = Solver("dual-exact", 5, 0, damping, "", 0.0, "plain")
    train = lambda: iter([{"x": x[:25]}, {"x": x[25:]}])  # noqa: E731
    plan = plan_gradients(model, output, first_examples(train))
    inverse, found = dual_inverse(model, output, train, plan, solver, 0, GIB, torch.ones(N))
    assert found == pytest.approx(ridge, rel=1e-5)
    left = dual_left(inverse[FORGET][:, FORGET], found)
    residuals = together(y[FORGET] - x[FORGET] @ w, left)
    weights = torch.zeros(N).index_put((torch.tensor(FORGET),), residuals)
    along = direction(model, output, train, dual_coefficients(inverse, weights))
    test = torch.randn(M, 5, generator=generator)
    with torch.no_grad():
        now = logits(model, {"x": test})
    predicted = now - derivative(model, logits, iter([{"x": test}]), along)
    model.weight.data = fitted(kept)[None]
    with torch.no_grad():
        torch.testing.assert_close(predicted, logits(model, {"x": test}), rtol=1e-3, atol=1e-4)
