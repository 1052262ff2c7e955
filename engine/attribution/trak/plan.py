"""The plan by which per-example gradients are computed. `make_plan` makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Tensors by name; the first dimension of each is the batch."""

Output = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) → model outputs `[batch]`; row i depends on example i alone."""


@dataclass(frozen=True)
class Layer:
    """A layer whose parameter gradients follow from its input and output gradient.

    Attributes:
        weight: Name of the weight in `Plan.shapes`; None where it is not attributed.
        bias: Name of the bias; None where there is none or it is not attributed.
        positions: How often the weight is applied to one example (pixels, tokens, calls).
    """

    weight: str | None
    bias: str | None
    positions: int


@dataclass(frozen=True)
class Plan:
    """How the gradient of each parameter is computed. Holds names and numbers, no tensors.

    Attributes:
        shapes: Shape of every attributed parameter by name, in the model's order.
        energies: Mean squared norm of each parameter's gradient over the first few examples.
        layers: Layer name → layer with a gradient rule.
        untapped: Parameters without such a layer; `untapped_gradients` computes their gradients.
        looped: vmap cannot run this model, so untapped gradients are computed one example at a
            time.
    """

    shapes: dict[str, torch.Size]
    energies: dict[str, float]
    layers: dict[str, Layer]
    untapped: tuple[str, ...]
    looped: bool

    @property
    def n_parameters(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())


def head(batch: Batch, size: int) -> Batch:
    """The first `size` examples of a batch."""
    return {name: tensor[:size] for name, tensor in batch.items()}


def layers_of(model: nn.Module, plan: Plan) -> dict[str, nn.Module]:
    """The model's layers with a gradient rule, by name."""
    return {path: model.get_submodule(path) for path in plan.layers}
