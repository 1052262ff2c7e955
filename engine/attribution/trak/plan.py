"""How the gradient of each parameter is computed: the plan that `make_plan` draws up."""

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
    """A tapped layer: the canonical names of its parameters, None where it has none to attribute.

    Attributes:
        weight: Name of the weight in `Plan.shapes`.
        bias: Name of the bias.
        positions: How often the weight is applied to one example (pixels, tokens, calls).
    """

    weight: str | None
    bias: str | None
    positions: int


@dataclass(frozen=True)
class Plan:
    """How the gradient of each parameter is got. Holds names and numbers, no tensors.

    Attributes:
        shapes: Every attributed parameter, in the model's order.
        energies: Mean squared norm of each parameter's gradient over the first few examples.
        layers: Layer name → tapped layer.
        untapped: Parameters whose gradients come from `untapped_gradients`.
        looped: vmap has no rule for this model, so the untapped go example by example.
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
    """The tapped layers of this model by name."""
    return {path: model.get_submodule(path) for path in plan.layers}
