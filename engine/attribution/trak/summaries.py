"""Sums and norms of per-example gradients, without the dense gradient of any table of embeddings.

A text looks up a few rows of a table of tens of thousands, so its gradient is kept as these rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attribution.trak.backward import backward
from engine.attribution.trak.gradients import add_gradient, untapped_gradients
from engine.attribution.trak.layer_gradients import (
    bias_gradient,
    embedding_rows,
    scatter_rows,
    weight_gradient,
)
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.plan import Batch, Output, Plan

_Rows = list[tuple[Tensor, Tensor]]
"""(ids `[batch, positions]`, gradients `[batch, positions, features]`) of each use of a table."""


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
    tables: dict[str, _Rows] = {}
    owners: dict[str, int] = {}
    for layer in plan.layers.values():
        for name in (layer.weight, layer.bias):
            if name:
                owners[name] = owners.get(name, 0) + 1

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        names = plan.layers[path]
        if names.weight:
            if isinstance(layer, nn.Embedding) and owners[names.weight] == 1:
                rows = a.reshape(len(a), -1), embedding_rows(layer, a, g)
                tables.setdefault(names.weight, []).append(rows)
            else:
                add_gradient(found, names.weight, weight_gradient(layer, a, g))
        if names.bias:
            add_gradient(found, names.bias, bias_gradient(layer, g))

    values = backward(model, output, batch, layers_of(model, plan), consume, plan.examples)
    norms = {name: _squares(gradient) for name, gradient in found.items()}
    norms |= {name: _squares_of_rows(uses) for name, uses in tables.items()}
    if plan.untapped:
        joined = untapped_gradients(model, output, batch, plan.untapped, plan.looped)
        sizes = [plan.shapes[name].numel() for name in plan.untapped]
        for name, part in zip(plan.untapped, joined.split(sizes, 1), strict=True):
            norms[name] = _squares(part)
    zero = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    return {name: norms.get(name, zero) for name in plan.shapes}


def _squares(gradient: Tensor) -> Tensor:
    return gradient.double().square().reshape(len(gradient), -1).sum(1)


def _squares_of_rows(uses: _Rows) -> Tensor:
    """Rows that one example looks up more than once are summed first."""
    ids = torch.cat([ids for ids, _ in uses], 1)
    rows = torch.cat([rows for _, rows in uses], 1).double()
    same = (ids[:, :, None] == ids[:, None, :]).double()
    return ((same @ rows) * rows).sum((1, 2))
