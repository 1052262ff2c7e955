"""Projected features give unbiased inner products for every kind of layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection, share_out, split
from engine.attribution.trak.projection import (
    _outer,
    check_finite,
    check_projection,
    features,
    project,
)
from engine.store.errors import DataloupeError
from tests.builders.exact_gradients import dense_gradients

BATCH = 4


def output(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["x"]).flatten(1).tanh().sum(1)


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.scale


def convolutional() -> tuple[nn.Module, dict[str, Tensor]]:
    """Strided, wide and grouped convolutions, a norm, a linear layer."""
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, groups=2),
        nn.Tanh(),
        nn.Conv2d(12, 6, (2, 1), dilation=2, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 2 * 4, 7),
    )
    return model.eval(), {"x": torch.randn(BATCH, 2, 12, 12)}


def sequential() -> tuple[nn.Module, dict[str, Tensor]]:
    """Embedded tokens through linear layers, a norm, and a parameter without a rule."""
    model = nn.Sequential(
        nn.Embedding(11, 6, padding_idx=0),
        nn.LayerNorm(6),
        nn.Linear(6, 6),
        nn.Tanh(),
        Affine(),
    )
    return model, {"x": torch.randint(0, 11, (BATCH, 5))}


class Shared(nn.Module):
    """One linear layer used three times, and one whose weights are the first embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.linear = nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for _ in range(3):
            x = self.linear(x).tanh()
        return self.head(x)


def shared() -> tuple[nn.Module, dict[str, Tensor]]:
    return Shared(), {"x": torch.randint(0, 9, (BATCH, 5))}


MODELS = pytest.mark.parametrize("make", [convolutional, sequential, shared])


def projection_of(model, batch, width, proj_dim=None, seed=0):
    return make_projection(plan_gradients(model, output, batch), model, width, proj_dim, seed)


@MODELS
@pytest.mark.parametrize("proj_dim", [None, 40])
def test_inner_products_are_unbiased(make, proj_dim):
    torch.manual_seed(0)
    model, batch = make()
    gradients = dense_gradients(model, output, batch)
    exact = gradients @ gradients.T
    plan = plan_gradients(model, output, batch)
    found = []
    for seed in range(300):
        block = project(model, output, batch, make_projection(plan, model, 60, proj_dim, seed))
        found.append(block @ block.T)
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 300**0.5
    assert ((mean - exact).abs() < 5 * error).all()
    assert error.max() < 0.1 * exact.diagonal().max()


@MODELS
def test_wide_enough_is_exact(make):
    torch.manual_seed(0)
    model, batch = make()
    projection = projection_of(model, batch, width=10_000)
    gradients = dense_gradients(model, output, batch)
    assert projection.width == gradients.shape[1]
    found = project(model, output, batch, projection)
    torch.testing.assert_close(found @ found.T, gradients @ gradients.T, rtol=1e-4, atol=1e-4)


@MODELS
@pytest.mark.parametrize("proj_dim", [None, 32])
def test_features_do_not_depend_on_the_batch(make, proj_dim):
    torch.manual_seed(0)
    model, batch = make()
    projection = projection_of(model, batch, 100, proj_dim)
    together = project(model, output, batch, projection)
    singles = ({"x": batch["x"][i : i + 1]} for i in range(BATCH))
    alone = torch.cat(list(features(model, output, singles, projection)))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.shape == (BATCH, projection.proj_dim)


def test_both_orders_of_contraction_agree(monkeypatch):
    torch.manual_seed(0)
    model, batch = convolutional()
    found = []
    for copy in (-1e9, 1e9):  # what a patch costs decides the order
        monkeypatch.setattr("engine.attribution.trak.make_projection._COPY", copy)
        projection = projection_of(model, batch, 300)
        early = [matrix.kernels is not None for matrix in projection.matrices.values()]
        assert any(early) == (copy > 0)
        found.append(project(model, output, batch, projection))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("columns", [3, 9])  # fewer and more than rows
@pytest.mark.parametrize("flat", [1e-9, 1e9])  # what a flat product costs decides the order
def test_outer_products_agree_in_every_order(monkeypatch, columns, flat):
    torch.manual_seed(0)
    monkeypatch.setattr("engine.attribution.trak.projection._FLAT", flat)
    out, seen, left = torch.randn(BATCH, 50, 6), torch.randn(BATCH, 50, columns), torch.randn(6, 2)
    for chosen in (left, None):
        projected = out if chosen is None else out @ chosen
        wanted = torch.einsum("bto,bti->boi", projected, seen)
        torch.testing.assert_close(_outer(out, seen, chosen), wanted, rtol=1e-4, atol=1e-4)


@MODELS
def test_features_are_written_in_place(make):
    torch.manual_seed(0)
    model, batch = make()
    for proj_dim in (None, 32):
        projection = projection_of(model, batch, 100, proj_dim)
        into = torch.full((BATCH, projection.proj_dim), torch.nan)
        project(model, output, batch, projection, into)
        assert torch.equal(into, project(model, output, batch, projection))


@MODELS
@pytest.mark.parametrize("proj_dim", [7, 32])  # blocks of features that go around several times
def test_the_sketch_is_a_signed_sum_of_features(make, proj_dim):
    torch.manual_seed(0)
    model, batch = make()
    projection = projection_of(model, batch, 100, proj_dim)
    assert projection.signs is not None
    whole = replace(projection, signs=None, proj_dim=projection.width)
    wide = torch.zeros(BATCH, projection.signs.numel())
    wide[:, : projection.width] = project(model, output, batch, whole)
    wanted = (wide.unflatten(1, projection.signs.shape) * projection.signs).sum(1)
    found = project(model, output, batch, projection)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_seed_fixes_the_projection():
    torch.manual_seed(0)
    model, batch = convolutional()
    first, again, other = (
        project(model, output, batch, projection_of(model, batch, 100, 32, seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert (first - other).norm() > 0.5 * first.norm()


@MODELS
@pytest.mark.parametrize("width", [1, 50])
def test_parts_make_the_whole(make, width):
    torch.manual_seed(0)
    model, batch = make()
    whole = projection_of(model, batch, 90)
    parts = split(whole, width)
    blocks = [project(model, output, batch, part) for part in parts]
    assert len(parts) > 1
    found = project(model, output, batch, whole)
    total = sum((block @ block.T for block in blocks), torch.zeros(()))
    torch.testing.assert_close(total, found @ found.T, rtol=1e-4, atol=1e-5)


@given(
    st.dictionaries(
        st.text(max_size=3), st.tuples(st.integers(0, 10_000), st.floats(0, 1e6)), min_size=1
    ),
    st.integers(1, 20_000),
)
def test_shares_use_the_width_and_fit_the_blocks(blocks, width):
    sizes = {name: size for name, (size, _) in blocks.items()}
    shares = share_out(sizes, {name: energy for name, (_, energy) in blocks.items()}, width)
    assert all(min(1, size) <= shares[name] <= size for name, size in sizes.items())
    total = sum(shares.values())
    if not all(energy > 1e-3 for _, energy in blocks.values()):
        return  # a block without energy need not be filled
    assert total <= width + len(sizes)
    assert total >= min(width, sum(sizes.values())) - len(sizes)


@MODELS
@pytest.mark.parametrize(("width", "proj_dim"), [(150, None), (150, 64), (10_000, None)])
def test_correct_projections_pass_the_check(make, width, proj_dim):
    torch.manual_seed(0)
    model, batch = make()
    for seed in range(10):
        check_projection(model, output, batch, projection_of(model, batch, width, proj_dim, seed))


def test_a_projection_of_another_scale_fails_the_check():
    torch.manual_seed(0)
    model, batch = convolutional()
    projection = projection_of(model, batch, 10_000, 512)
    assert projection.signs is not None
    projection.signs.mul_(1.5)
    with pytest.raises(DataloupeError, match="squared norm"):
        check_projection(model, output, batch, projection)


def test_zero_gradients_are_refused():
    model, batch = convolutional()
    projection = projection_of(model, batch, 100)

    def constant(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return 0 * output(model, batch)

    check_projection(model, constant, batch, projection)  # other examples had gradients
    plan = replace(projection.plan, energies=dict.fromkeys(projection.plan.energies, 0.0))
    with pytest.raises(DataloupeError, match="all zero"):
        check_projection(model, constant, batch, replace(projection, plan=plan))


def test_only_what_is_not_finite_is_refused():
    """Not what merely sums to more than single precision holds."""
    check_finite(torch.full((2, 3), 3e38), "batch 0")
    with pytest.raises(DataloupeError, match="of batch 0 are not finite"):
        check_finite(torch.tensor([[1.0, torch.inf]]), "batch 0")


def test_gradients_that_are_not_finite_are_refused():
    model, batch = convolutional()
    projection = projection_of(model, batch, 100)
    broken = {"x": batch["x"].clone()}
    broken["x"][2, 0, 0, 0] = torch.nan
    with pytest.raises(DataloupeError, match="not finite"):
        list(features(model, output, iter([broken]), projection))
