"""Exact per-example gradients of the model outputs.

Layers with a rule in `layer_gradients` need one forward and one activation-only backward pass for
the whole batch. The gradients of all other parameters come from `torch.func`, or from one backward
pass per example where vmap cannot run the model: slower, but always right. `make_plan` decides
which parameter takes which way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.attribution.trak.backward import backward, frozen, in_single_precision
from engine.attribution.trak.layer_gradients import bias_gradient, weight_gradient
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.plan import Batch, Output, Plan


def tapped_gradients(
    model: nn.Module, output: Output, batch: Batch, plan: Plan
) -> dict[str, Tensor]:
    """Exact gradients `[batch, *shape]` of every parameter in `plan.layers`, by name."""
    found: dict[str, Tensor] = {}

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        names = plan.layers[path]
        if names.weight:
            add_gradient(found, names.weight, weight_gradient(layer, a, g))
        if names.bias:
            add_gradient(found, names.bias, bias_gradient(layer, g))

    values = backward(model, output, batch, layers_of(model, plan), consume, plan.examples)
    for name, shape in plan.shapes.items():
        if name not in plan.untapped and name not in found:  # the output does not depend on it
            found[name] = values.new_zeros(len(values), *shape)
    return found


def add_gradient(found: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    """Add the gradient from one use of a parameter to those of its other uses."""
    found[name] = found[name] + gradient if name in found else gradient


class OutputModule(nn.Module):
    """`output(model, batch)` as a module, so that `functional_call` can replace parameters."""

    def __init__(self, model: nn.Module, output: Output) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, batch: Batch) -> Tensor:
        return self.output(self.model, batch)


def untapped_gradients(
    model: nn.Module, output: Output, batch: Batch, names: Sequence[str], looped: bool
) -> Tensor:
    """Gradients of the named parameters, flattened and joined: `[batch, sum of sizes]`.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples.
        names: Parameters, in the order of the result's columns.
        looped: One backward pass per example instead of vmap.
    """
    leaves = [parameter for _, parameter in _named(model, names)]
    with frozen(model):
        if not looped:
            return _mapped_gradients(model, output, batch, names)
        for leaf in leaves:
            leaf.requires_grad_(True)
        rows = []
        for i in range(len(next(iter(batch.values())))):
            with torch.enable_grad():
                value = output(model, {name: tensor[i : i + 1] for name, tensor in batch.items()})[
                    0
                ]
            if not value.requires_grad:
                rows.append(leaves[0].new_zeros(sum(leaf.numel() for leaf in leaves)).float())
                continue
            parts = torch.autograd.grad(value, leaves, materialize_grads=True)
            rows.append(torch.cat([in_single_precision(part.flatten()) for part in parts]))
        return torch.stack(rows)


def differentiable_attention() -> contextlib.AbstractContextManager[None]:
    """Attention by plain matrix products: the fused kernels know neither vmap nor derivatives in
    forward mode."""
    found: contextlib.AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return found


def _mapped_gradients(
    model: nn.Module, output: Output, batch: Batch, names: Sequence[str]
) -> Tensor:
    chosen = {f"model.{name}": parameter.detach() for name, parameter in _named(model, names)}
    outputs = OutputModule(model, output)

    def one(swapped: dict[str, Tensor], example: Batch) -> Tensor:
        single = {name: tensor.unsqueeze(0) for name, tensor in example.items()}
        value: Tensor = torch.func.functional_call(outputs, swapped, (single,))[0]
        return value

    with differentiable_attention():
        found = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(chosen, batch)
    parts = [found[name].reshape(len(found[name]), -1) for name in chosen]
    return torch.cat([in_single_precision(part) for part in parts], 1)


def _named(model: nn.Module, names: Sequence[str]) -> list[tuple[str, nn.Parameter]]:
    parameters = dict(model.named_parameters())
    return [(name, parameters[name]) for name in names]


def per_example_gradients(
    model: nn.Module, output: Output, batch: Batch, plan: Plan
) -> dict[str, Tensor]:
    """Exact gradients `[batch, *shape]` of every attributed parameter, by name."""
    found = tapped_gradients(model, output, batch, plan)
    if plan.untapped:
        joined = untapped_gradients(model, output, batch, plan.untapped, plan.looped)
        sizes = [plan.shapes[name].numel() for name in plan.untapped]
        for name, part in zip(plan.untapped, joined.split(sizes, 1), strict=True):
            found[name] = part.unflatten(1, plan.shapes[name]) if plan.shapes[name] else part[:, 0]
    return {name: found[name] for name in plan.shapes}
