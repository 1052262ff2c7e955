"""Sums and norms of per-example gradients, without the dense gradient of any table of embeddings.

A text looks up a few rows of a table of tens of thousands, so its gradient is kept as these rows.
Where the table is also the output layer, that use is kept as its input and output gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attribution.trak.backward import backward
from engine.attribution.trak.gradients import add_gradient, untapped_gradients
from engine.attribution.trak.layer_gradients import (
    bias_gradient,
    embedding_rows,
    positions_of,
    scatter_rows,
    weight_gradient,
)
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.plan import Batch, Output, Plan

_Uses = list[tuple[Tensor, Tensor]]
"""The uses of a table, whose gradient in each is Σ_t left_t right_tᵀ: left is ids `[batch,
positions]`, which stand for unit vectors, or gradients `[batch, positions, table's rows]`; right is
`[batch, positions, features]`."""


def weighted_sums(
    model: nn.Module, output: Output, batch: Batch, plan: Plan, weights: Tensor
) -> dict[str, Tensor]:
    """Σ_b weights[b] · gradient of example b, of every parameter with a rule that is used."""
    found: dict[str, Tensor] = {}

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        names = plan.layers[path]
        if names.weight:
            if isinstance(layer, nn.Embedding):
                rows = (embedding_rows(layer, a, g) * weights[:, None, None]).flatten(0, 1)
                total = scatter_rows(rows[None], a.reshape(1, -1), layer.num_embeddings)[0]
            elif isinstance(layer, nn.Linear):
                scaled = positions_of(g) * weights[:, None, None]
                total = scaled.flatten(0, 1).T @ positions_of(a).flatten(0, 1)
            else:
                total = torch.einsum("b,b...->...", weights, weight_gradient(layer, a, g))
            add_gradient(found, names.weight, total)
        if names.bias:
            bias = torch.einsum("b,b...->...", weights, bias_gradient(layer, g))
            add_gradient(found, names.bias, bias)

    backward(model, output, batch, layers_of(model, plan), consume, plan.examples)
    return found


def squared_norms(model: nn.Module, output: Output, batch: Batch, plan: Plan) -> dict[str, Tensor]:
    """Squared norms `[batch]`, float64, of the gradient of every attributed parameter, by name."""
    found: dict[str, Tensor] = {}
    tables: dict[str, _Uses] = {}
    layers = layers_of(model, plan)
    uses: dict[str, list[nn.Module]] = {}
    for path, names in plan.layers.items():
        if names.weight:
            uses.setdefault(names.weight, []).append(layers[path])
    kept_apart = {
        name
        for name, those in uses.items()
        if any(isinstance(one, nn.Embedding) for one in those)
        and all(isinstance(one, (nn.Embedding, nn.Linear)) for one in those)
    }

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        names = plan.layers[path]
        if names.weight:
            if names.weight in kept_apart and isinstance(layer, nn.Embedding):
                use = a.reshape(len(a), -1), embedding_rows(layer, a, g)
                tables.setdefault(names.weight, []).append(use)
            elif names.weight in kept_apart:
                use = positions_of(g), positions_of(a)
                tables.setdefault(names.weight, []).append(use)
            else:
                add_gradient(found, names.weight, weight_gradient(layer, a, g))
        if names.bias:
            add_gradient(found, names.bias, bias_gradient(layer, g))

    values = backward(model, output, batch, layers, consume, plan.examples)
    norms = {name: _squares(gradient) for name, gradient in found.items()}
    norms |= {name: _squares_of_uses(found) for name, found in tables.items()}
    if plan.untapped:
        joined = untapped_gradients(model, output, batch, plan.untapped, plan.looped)
        sizes = [plan.shapes[name].numel() for name in plan.untapped]
        for name, part in zip(plan.untapped, joined.split(sizes, 1), strict=True):
            norms[name] = _squares(part)
    zero = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    return {name: norms.get(name, zero) for name in plan.shapes}


def _squares(gradient: Tensor) -> Tensor:
    return gradient.double().square().reshape(len(gradient), -1).sum(1)


def _squares_of_uses(uses: _Uses) -> Tensor:
    """‖Σ_t left_t right_tᵀ‖² = Σ_tu (left_t · left_u)(right_t · right_u), over all uses: rows that
    one example looks up more than once, or also predicts, are summed first."""
    total = torch.zeros((), dtype=torch.float64, device=uses[0][1].device)
    for i, (left, right) in enumerate(uses):
        for j, (other, values) in enumerate(uses[i:]):
            similar = _products(left, other).double() * (right.double() @ values.double().mT)
            total = total + similar.sum((1, 2)) * (2 if j else 1)
    return total


def _products(left: Tensor, other: Tensor) -> Tensor:
    """left_t · left_u of two uses, `[batch, positions, positions]`."""
    if left.is_floating_point() and other.is_floating_point():
        return left @ other.mT
    if left.is_floating_point():
        return left.gather(2, other[:, None].expand(-1, left.shape[1], -1))
    if other.is_floating_point():
        return _products(other, left).mT
    return (left[:, :, None] == other[:, None, :]).to(torch.float64)
