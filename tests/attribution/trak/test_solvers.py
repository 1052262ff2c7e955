"""TRAK of one checkpoint, by each solver, against closed forms and exact gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from engine.attribution.trak.choose_solver import choose_solver
from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.kernel import feature_parameters, make_kernel
from engine.attribution.trak.linear_system import temper
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.primal import gram, primal_projection
from engine.attribution.trak.primal import test_factors as factors_of
from engine.attribution.trak.projection import features
from engine.attribution.trak.solver import Solver
from engine.store.errors import CheckpointError, DataloupeError, SpecError
from engine.store.spec import TrakSpec
from tests.builders.exact_gradients import dense_gradients, dense_trak

GIB = 2**30
N, M = 40, 7


def margin(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["x"])
    correct = logits.gather(1, batch["y"][:, None])[:, 0]
    rest = logits.scatter(1, batch["y"][:, None], -torch.inf)
    return correct - rest.logsumexp(1)


def mean(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["x"])[:, 0]


def batches(n: int, *shape: int, size: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator)
    y = torch.randint(0, 3, (n,), generator=generator)

    def iterate() -> Iterator[dict[str, Tensor]]:
        for start in range(0, n, size):
            yield {"x": x[start : start + size], "y": y[start : start + size]}

    return iterate


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3, bias=False))


def cnn() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return model.eval()


class Tied(nn.Module):
    """Two linear layers with one weight: neither has a kernel of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).tanh()).tanh())


CASES = pytest.mark.parametrize(("make", "shape"), [(mlp, (5,)), (cnn, (1, 6, 6))])


def dense(model: nn.Module, *splits) -> list[Tensor]:
    return [
        torch.cat([dense_gradients(model, margin, batch) for batch in split()]) for split in splits
    ]


def solver_to(
    kind: str, width: int = 10_000, proj_dim: int = 10_000, damping: float = 0.5
) -> Solver:
    return Solver(kind, width, proj_dim, damping, "", 0.5, "gauss-newton")


def attribute(model, train, test, solver, memory=GIB, seed=0, output=margin) -> Tensor:
    return attribute_dual(model, output, train, test, solver, seed, memory)


def primal(model, train, test, solver, seed=0) -> Tensor:
    projection = primal_projection(model, margin, next(train()), solver, seed)
    train_features = list(features(model, margin, train(), projection))
    test_features = torch.cat(list(features(model, margin, test(), projection)))
    factors = factors_of(gram(train_features), test_features, solver.damping)
    return torch.cat([factors @ block.T for block in train_features], 1)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize(("make", "shape"), [(mlp, (5,)), (Tied, (5,)), (cnn, (1, 6, 6))])
def test_exact_kernel_is_the_gram_matrix_of_gradients(make, shape):
    torch.manual_seed(0)
    model, train, test = make(), batches(N, *shape), batches(M, *shape, seed=1)
    plan = plan_gradients(model, margin, next(train()))
    kernel = make_kernel(model, margin, train, test, plan, 10_000, 0, GIB)
    a, b = dense(model, train, test)
    close(kernel.train.triu(), (a @ a.T).triu())
    close(kernel.test, a @ b.T)


def test_linear_layers_that_are_applied_once_need_no_features():
    model = mlp()
    plan = plan_gradients(model, margin, next(batches(N, 5)()))
    assert feature_parameters(plan, model) == ["1.weight", "1.bias"]


@CASES
def test_dual_equals_the_dense_path(make, shape):
    torch.manual_seed(0)
    model, train, test = make(), batches(N, *shape), batches(M, *shape, seed=1)
    found = attribute(model, train, test, solver_to("dual-exact"))
    close(found, dense_trak(*dense(model, train, test), 0.5).float(), 1e-3)


def test_a_linear_model_gives_ridge_leverage():
    torch.manual_seed(0)
    model, train, test = nn.Linear(5, 1, bias=False), batches(N, 5), batches(M, 5, seed=1)
    x, z = (torch.cat([batch["x"] for batch in split()]).double() for split in (train, test))
    ridge = 0.5 * x.square().sum() / N
    wanted = z @ torch.linalg.inv(x.T @ x + ridge * torch.eye(5)) @ x.T
    found = attribute(model, train, test, solver_to("dual-exact"), output=mean)
    close(found, wanted.float())


@CASES
@pytest.mark.parametrize(("width", "proj_dim"), [(10_000, 10_000), (100, 100), (100, 32)])
def test_primal_scores_follow_from_their_own_features(make, shape, width, proj_dim):
    """The push-through identity: primal and dual agree when their ridges are the same number."""
    torch.manual_seed(0)
    model, train, test = make(), batches(N, *shape), batches(M, *shape, seed=1)
    solver = solver_to("primal", width, proj_dim)
    projection = primal_projection(model, margin, next(train()), solver, 3)
    a, b = (torch.cat(list(features(model, margin, s(), projection))) for s in (train, test))
    damping = 0.5 * N / a.shape[1]  # the dual's mean diagonal is tr / n, the primal's tr / p
    close(primal(model, train, test, solver, seed=3), dense_trak(a, b, damping).float(), 1e-3)


@CASES
def test_scores_do_not_depend_on_batch_size_or_memory(make, shape):
    torch.manual_seed(0)
    model, test = make(), batches(M, *shape, seed=1)
    solver = solver_to("dual-wide", 60)
    wanted = attribute(model, batches(N, *shape), test, solver)
    for size, memory in ((1, GIB), (40, GIB), (16, 1)):
        found = attribute(model, batches(N, *shape, size=size), test, solver, memory)
        close(found, wanted, 1e-3)


def test_weights_give_the_gauss_newton_step():
    """The dual and the primal, weighted by tempered Q, equal Φ (ΦᵀWΦ + λI)⁻¹ φ(x)."""
    torch.manual_seed(0)
    model, train, test = mlp(), batches(N, 5), batches(M, 5, seed=1)
    a, b = (x.double() for x in dense(model, train, test))
    q = torch.rand(N)
    solver = solver_to("dual-exact")
    weights = q.double().sqrt() / q.double().sqrt().mean()
    weighted = a.T @ (weights[:, None] * a)
    eye = torch.eye(a.shape[1], dtype=torch.float64)
    wanted = b @ torch.linalg.inv(weighted + solver.damping * weighted.trace() / N * eye) @ a.T
    found = attribute_dual(model, margin, train, test, solver, 0, GIB, q)
    close(found, wanted.float(), 1e-3)

    in_p = solver.damping * a.shape[1] / N  # the mean diagonal is tr / p here, tr / n in the dual
    factors = factors_of(gram(a.float().split(7), solver, q), b.float(), in_p)
    close(factors @ a.float().T, wanted.float(), 1e-3)


def test_out_to_loss_gradients_of_one_change_nothing():
    torch.manual_seed(0)
    model, train, test = mlp(), batches(N, 5), batches(M, 5, seed=1)
    solver = solver_to("dual-exact")
    found = attribute_dual(model, margin, train, test, solver, 0, GIB, torch.ones(N))
    close(found, attribute(model, train, test, solver))
    assert temper(torch.tensor([0.0, 0.25]), solver).tolist() == pytest.approx([1e-4, 0.5])


def test_wide_features_come_close_to_the_exact_kernel():
    torch.manual_seed(0)
    model, train, test = cnn(), batches(N, 1, 6, 6), batches(M, 1, 6, 6, seed=1)
    exact = attribute(model, train, test, solver_to("dual-exact", damping=3.0))
    wide = attribute(model, train, test, solver_to("dual-wide", 300, damping=3.0))
    assert torch.corrcoef(torch.stack([exact.flatten(), wide.flatten()]))[0, 1] > 0.95


def test_a_seed_fixes_the_scores():
    torch.manual_seed(0)
    model, train, test = cnn(), batches(N, 1, 6, 6), batches(M, 1, 6, 6, seed=1)
    solver = solver_to("dual-wide", 60)
    first, again, other = (attribute(model, train, test, solver, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_no_damping_on_a_singular_kernel_is_an_error():
    model, train, test = nn.Linear(5, 1), batches(N, 5), batches(M, 5, seed=1)
    with pytest.raises(DataloupeError, match="not positive definite"):
        attribute(model, train, test, solver_to("dual-exact", damping=0.0), output=mean)
    with pytest.raises(DataloupeError, match="not positive definite"):
        factors_of(torch.zeros(3, 3), torch.ones(2, 3), 0.0)


def test_train_mode_batch_norm_is_refused():
    train = batches(N, 1, 6, 6)
    with pytest.raises(CheckpointError, match="train mode"):
        attribute(cnn().train(), train, train, solver_to("dual-exact"))


@CASES
def test_nan_data_is_refused(make, shape):
    model, train = make(), batches(N, *shape)

    def broken() -> Iterator[dict[str, Tensor]]:
        for number, batch in enumerate(train()):
            x = batch["x"].clone()
            x[-1] = torch.nan if number == 1 else x[-1]
            yield {**batch, "x": x}

    with pytest.raises(DataloupeError, match="not finite"):
        attribute(model, broken, train, solver_to("dual-exact"))


# --- the choice of solver ------------------------------------------------------------------------


def choose(model, shape, n_train, memory=GIB, **spec) -> Solver:
    return choose_solver(
        model, margin, next(batches(4, *shape)()), n_train, 100, TrakSpec(**spec), memory
    )


def test_solvers_by_size_and_memory():
    assert choose(mlp(), (5,), 5_000).kind == "dual-exact"
    assert choose(cnn(), (1, 6, 6), 5_000).kind == "dual-exact"
    assert choose(cnn(), (1, 6, 6), 5_000, width=100).kind == "dual-wide"
    assert choose(cnn(), (1, 6, 6), 5_000, memory=10**6).kind == "primal"
    assert choose(mlp(), (5,), 1_000_000, memory=10**15).kind == "primal"
    reason = choose(mlp(), (5,), 1_000_000).reason
    assert "1,000,000" in reason
    assert reason.endswith(".")


def test_a_solver_in_the_spec_is_taken_or_refused():
    assert choose(mlp(), (5,), 5_000, solver="primal").kind == "primal"
    assert choose(mlp(), (5,), 5_000, solver="dual-wide", width=64).width == 12
    with pytest.raises(SpecError, match="memory_gib"):
        choose(mlp(), (5,), 5_000, memory=10**6, solver="dual-exact")


@pytest.mark.parametrize(
    ("solver", "asked", "stored"),
    [
        ("primal", "auto", "int4"),
        ("primal", "float16", "float16"),
        ("dual-exact", "auto", "float32"),
        ("dual-wide", "int8", "float32"),
    ],
)
def test_only_features_of_the_primal_are_stored_in_fewer_bits(solver, asked, stored):
    assert choose(mlp(), (5,), 5_000, solver=solver, storage=asked).storage == stored


def test_damping_in_the_spec_is_taken_even_if_zero():
    assert choose(mlp(), (5,), 5_000, damping=0.0).damping == 0
    assert choose(mlp(), (5,), 5_000).damping > 0
