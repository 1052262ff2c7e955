"""The plan by which per-example gradients are computed. `make_plan` makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Tensors by name; the first dimension of each is the batch."""

Output = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) → model outputs `[batch]`; row i depends on example i alone."""

Examples = Literal["first", "second", "folded", "shared"]
"""Where a layer's input has the examples of a batch: in its first dimension, in its second (behind
positions), in the first together with positions or windows (`[batch · positions, …]`), or nowhere:
it is called once for the whole batch, as with the ids of positions, and its result is broadcast
over the examples."""

ROWS = "context_rows"
"""Name of the tensor `[batch]` with the number of each example, in a batch of examples that do not
follow one another, such as texts sorted by length. Numbers count from the first example that a
function's `Batches` yield."""


@dataclass(frozen=True)
class Layer:
    """A layer whose parameter gradients follow from its input and output gradient.

    Attributes:
        weight: Name of the weight in `Plan.shapes`; None where it is not attributed.
        bias: Name of the bias; None where there is none or it is not attributed.
        positions: How often the weight is applied to one example (pixels, tokens, calls).
        examples: Where its input has the examples of a batch.
        lead: For a parameter that its module uses by itself, how `own_parameters` lays it out for
            each example; None for a layer.
    """

    weight: str | None
    bias: str | None
    positions: int
    examples: Examples = "first"
    lead: int | None = None


@dataclass(frozen=True)
class Plan:
    """How the gradient of each parameter is computed. Holds names and numbers, no tensors.

    Attributes:
        shapes: Shape of every attributed parameter by name, in the model's order.
        energies: Mean squared norm of each parameter's gradient over the first few examples.
        layers: Layer name → layer with a gradient rule. A parameter that its module uses by itself
            is a layer of the parameter's name.
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

    @property
    def examples(self) -> dict[str, Examples]:
        """`Layer.examples` of the layers where it is not `first`, by name."""
        return {
            path: layer.examples for path, layer in self.layers.items() if layer.examples != "first"
        }


def head(batch: Batch, size: int) -> Batch:
    """The first `size` examples of a batch."""
    return {name: tensor[:size] for name, tensor in batch.items()}


def size_of(batch: Batch) -> int:
    """Number of examples in a batch."""
    return len(next(iter(batch.values())))


def rows_of(batch: Batch, start: int) -> Tensor | slice:
    """The numbers of a batch's examples; `start` is the first one's where they follow in order."""
    if ROWS in batch:
        return batch[ROWS]
    return slice(start, start + size_of(batch))


def in_order(parts: Sequence[Tensor], rows: Sequence[Tensor | slice]) -> Tensor:
    """Join what was computed of each batch, by the numbers of its examples (`rows_of`)."""
    if all(isinstance(part, slice) for part in rows):
        return torch.cat(list(parts))
    found = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for part, numbers in zip(parts, rows, strict=True):
        found[numbers] = part
    return found


def where(rows: Tensor | slice) -> str:
    """The examples of a batch, for errors."""
    numbers = (rows.start, rows.stop - 1) if isinstance(rows, slice) else (rows.min(), rows.max())
    return f"examples {int(numbers[0])} to {int(numbers[1])}"
