"""`dual-exact` is exact: its kernel is that of the full gradients, whatever the architecture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.judging import kernel_error
from benchmarks.random_networks import first_output, random_network
from engine.attribution.trak.kernel import NO_LIMIT, make_kernel
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import share_out
from engine.models.classifier import head_of
from tests.builders.exact_gradients import dense_gradients


def error(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Against gradients by torch.func, which share no code with the kernel's."""
    return kernel_error(model, batch, dense_gradients(model, first_output, batch))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_kernel_equals_the_dense_one(seed: int) -> None:
    assert error(*random_network(seed)) <= 1e-5


def test_dead_units_on_the_first_examples_are_no_error() -> None:
    assert error(*random_network(9186)) <= 1e-5


def test_a_convolution_whose_share_was_rounded_down() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 7, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 3),
    ).eval()
    batch = {"x": torch.randn(12, 3, 8, 8)}
    assert error(model, batch) <= 1e-5


def test_a_linear_layer_of_its_own_class() -> None:
    """It is read as a use of its weight, with a name that is no module's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), head_of(5, 3, scale=0.5)).eval()
    assert error(model, {"x": torch.randn(12, 6)}) <= 1e-5


@pytest.mark.parametrize("energies", [(0.1, 0.2, 0.7), (1 / 3, 1 / 7, 1e-30), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("surplus", [0, 1, 10_000])
def test_enough_width_gives_every_block_its_size(energies: tuple[float, ...], surplus: int) -> None:
    sizes = {"a": 432, "b": 1, "c": 1130}
    shares = share_out(sizes, dict(zip(sizes, energies, strict=True)), 1563 + surplus)
    assert shares == sizes


def test_a_backbone_under_no_grad_adds_nothing_to_the_kernel_of_its_head() -> None:
    torch.manual_seed(0)

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.fc = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                features = self.conv(x).tanh().mean((2, 3))
            return self.fc(features)

    model, x = Headed().eval(), torch.randn(7, 1, 5, 5)

    def output(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["x"])[:, 0]

    def examples() -> Iterator[dict[str, torch.Tensor]]:
        yield {"x": x}

    plan = plan_gradients(model, output, {"x": x})
    kernel = make_kernel(model, output, examples, examples, plan, 64, 0, NO_LIMIT)
    features = torch.cat([model.conv(x).tanh().mean((2, 3)), torch.ones(7, 1)], 1).detach()
    torch.testing.assert_close(kernel.test, features @ features.T)
