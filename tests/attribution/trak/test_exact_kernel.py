"""`dual-exact` is exact: its kernel is that of the full gradients, whatever the architecture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.judging import kernel_error
from benchmarks.random_networks import first_output, random_network
from engine.attribution.trak.make_projection import share_out
from tests.builders.exact_gradients import dense_gradients


def error(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Against gradients by torch.func, which share no code with the kernel's."""
    return kernel_error(model, batch, dense_gradients(model, first_output, batch))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_kernel_equals_the_dense_one(seed: int) -> None:
    assert error(*random_network(seed)) <= 1e-5


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


@pytest.mark.parametrize("energies", [(0.1, 0.2, 0.7), (1 / 3, 1 / 7, 1e-30), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("surplus", [0, 1, 10_000])
def test_enough_width_gives_every_block_its_size(energies: tuple[float, ...], surplus: int) -> None:
    sizes = {"a": 432, "b": 1, "c": 1130}
    shares = share_out(sizes, dict(zip(sizes, energies, strict=True)), 1563 + surplus)
    assert shares == sizes
