"""Parameters that a module uses by itself, without a layer: class tokens, scales, position tables.

The model gets such a parameter once for each example: a table `[N, d]` that is added to
`[batch, N, d]` becomes `[batch, N, d]`, with the same numbers for all examples. What the model
computes stays the same, and the gradient at this tensor is the per-example gradient. How a
parameter has to be laid out depends on how the model uses it; `make_plan` tries `LEADS` and keeps
what leaves the outputs as they are and agrees with autograd.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

REPLACED = -1
"""The lead of a parameter whose first dimension has size 1, which becomes the batch."""
LEADS = (REPLACED, 0, 1, 2, 3)
"""Else `[batch, 1, …, 1, *shape]`, with so many ones."""


class OwnParameter(nn.Module):
    """A parameter and the modules that hold it, in the place of a layer. It is never called."""

    def __init__(
        self, weight: nn.Parameter, holders: Sequence[tuple[nn.Module, str]], lead: int
    ) -> None:
        super().__init__()
        self.weight = weight
        self.holders = tuple(holders)
        self.lead = lead

    def laid_out(self, size: int) -> Tensor:
        """The parameter's values for `size` examples, without copying them."""
        value, shape = self.weight.detach(), self.weight.shape
        if self.lead == REPLACED:
            return value.expand(size, *shape[1:])
        return value.expand(size, *(1,) * self.lead, *shape)


def own_parameters(model: nn.Module, leads: Mapping[str, int]) -> dict[str, OwnParameter]:
    """The parameters of these names, each with its lead and every module that holds it."""
    weights = {name: model.get_parameter(name) for name in leads}
    holders: dict[int, list[tuple[nn.Module, str]]] = {id(one): [] for one in weights.values()}
    for module in model.modules() if leads else ():
        for key, value in module._parameters.items():
            if id(value) in holders:
                holders[id(value)].append((module, key))
    return {
        name: OwnParameter(weight, holders[id(weight)], leads[name])
        for name, weight in weights.items()
    }


@contextlib.contextmanager
def laid_out(
    layers: Mapping[str, nn.Module], size: int, found: Callable[[str, OwnParameter, Tensor], None]
) -> Iterator[None]:
    """Within this context the model holds its own parameters laid out for `size` examples.

    Args:
        layers: Layers by name; only those that are an `OwnParameter` matter.
        size: Number of examples.
        found: Called in the backward pass with the gradient at the tensor that was laid out.
    """
    own = {path: layer for path, layer in layers.items() if isinstance(layer, OwnParameter)}
    try:
        for path, layer in own.items():
            value = layer.laid_out(size).requires_grad_(True)
            value.register_hook(lambda g, path=path, layer=layer: found(path, layer, g))
            for module, key in layer.holders:
                module._parameters[key] = value  # type: ignore[assignment]
        yield
    finally:
        for layer in own.values():
            for module, key in layer.holders:
                module._parameters[key] = layer.weight


def as_matrix(shape: torch.Size) -> tuple[int, int]:
    """(rows, columns) of a parameter `[1, …, rows, …]`: leading ones do not count."""
    sides = list(shape)
    while len(sides) > 1 and sides[0] == 1:
        sides.pop(0)
    return (sides[0], torch.Size(sides[1:]).numel()) if sides else (1, 1)
