"""The Newton step of a removal, against dense algebra and against retraining."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg
from torch import Tensor, nn
from torch.nn import functional

from engine.attribution.newton import newton_step, ridge_of
from engine.attribution.trak.removal_direction import derivative
from engine.store.spec import AlgorithmSpec
from engine.training.optimizer import training_time
from tests.attribution.trak.test_solvers import N, batches, cnn, mlp

CLASSES, RIDGE, ENOUGH = 3, 0.7, 200
GONE = torch.isin(torch.arange(N), torch.tensor([3, 7, 20]))


def logits_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    found: Tensor = model(batch["x"])
    return found


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return functional.cross_entropy(logits_of(model, batch), batch["y"], reduction="none")


def dense_system(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and right-hand side of δ from matrices of all derivatives, float64."""
    model = model.double()
    parameters = list(model.parameters())
    logits = model(x.double())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, retain_graph=True)])
        for value in logits.flatten()
    ]
    jacobian = torch.stack(rows).reshape(len(x), CLASSES, -1)
    p = logits.detach().softmax(dim=1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    gradient = torch.einsum("nc,ncp->p", (p - functional.one_hot(y, CLASSES))[GONE], jacobian[GONE])
    kept = jacobian[~GONE]
    matrix = torch.einsum("ncp,ncd,ndq->pq", kept, curvature[~GONE], kept)
    model.float()
    return matrix + RIDGE * torch.eye(len(matrix)), gradient


@pytest.mark.parametrize(("make", "shape"), [(mlp, (5,)), (cnn, (1, 8, 8))])
def test_the_step_is_that_of_dense_algebra(make, shape) -> None:
    torch.manual_seed(0)
    model, train = make(), batches(N, *shape)
    x, y = (torch.cat([batch[key] for batch in train()]) for key in ("x", "y"))
    matrix, gradient = dense_system(model, x, y)
    for iterations in (1, 2, 5, ENOUGH):
        found = newton_step(model, logits_of, loss, train, GONE, RIDGE, iterations)
        assert list(found) == [name for name, _ in model.named_parameters()]
        joined = torch.cat([tensor.flatten() for tensor in found.values()])
        wanted, _ = cg(matrix.numpy(), gradient.numpy(), rtol=1e-9, maxiter=iterations)
        np.testing.assert_allclose(joined, wanted, rtol=1e-2, atol=2e-3 * np.abs(wanted).max())
    np.testing.assert_allclose(matrix @ wanted, gradient, atol=1e-6)


def test_only_what_was_trained_moves() -> None:
    torch.manual_seed(0)
    model, train = mlp(), batches(N, 5)
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    found = newton_step(model, logits_of, loss, train, GONE, RIDGE, 5)
    names = [name for name, _ in model.named_parameters()]
    assert list(found) == names[1:]
    change = derivative(model, logits_of, train(), found)
    assert change.shape == (N, CLASSES)
    assert not change.requires_grad


def test_nothing_moves_where_nothing_is_removed() -> None:
    found = newton_step(mlp(), logits_of, loss, batches(N, 5), torch.zeros(N) > 0, RIDGE, 5)
    assert all((tensor == 0).all() for tensor in found.values())


def test_a_regularized_linear_model_goes_where_retraining_ends() -> None:
    """Softmax regression to convergence: the step from all examples to those without `GONE`."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(200, 4, generator=generator)
    y = (x @ torch.randn(4, CLASSES, generator=generator)).argmax(dim=1)
    gone = torch.arange(200) < 8

    def trained(rows: Tensor) -> nn.Linear:
        torch.manual_seed(0)
        model = nn.Linear(4, CLASSES)
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = functional.cross_entropy(model(x[rows]), y[rows], reduction="sum")
            for parameter in model.parameters():
                total = total + RIDGE / 2 * parameter.square().sum()
            total.backward()
            return total

        optimizer.step(closure)
        return model

    before, after = trained(torch.ones(200) > 0), trained(~gone)
    found = newton_step(
        before, logits_of, loss, lambda: iter([{"x": x, "y": y}]), gone, RIDGE, ENOUGH
    )
    predicted = torch.cat([tensor.flatten() for tensor in found.values()]).numpy()
    both = zip(before.parameters(), after.parameters(), strict=True)
    moved = [b.detach() - a.detach() for a, b in both]
    actual = torch.cat([tensor.flatten() for tensor in moved]).numpy()
    assert np.corrcoef(predicted, actual)[0, 1] > 0.99
    assert 0.9 < predicted @ actual / (predicted @ predicted) < 1.15


def test_the_time_of_a_training_is_the_sum_of_its_rates() -> None:
    constant = AlgorithmSpec(
        epochs=3, batch_size=10, learning_rate=0.2, schedule="constant", warmup=0, momentum=0.9
    )
    assert training_time(constant, 105) == pytest.approx(30 * 0.2 / 0.1)
    falling = constant.model_copy(update={"schedule": "triangular"})
    assert training_time(falling, 105) == pytest.approx(31 / 2 * 0.2 / 0.1)
    assert ridge_of(100, 50.0, 0.001) == pytest.approx(100 * (0.02 + 0.001))
