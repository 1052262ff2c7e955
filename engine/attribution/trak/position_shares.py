"""Split scores exactly over the positions of a sequence, such as the tokens of a text.

A score is a dot product of an example's gradient with a fixed direction D in parameter space, and
the gradient is a sum over layers and, within a layer, over the positions t where it is applied:

    ⟨D, ∇f⟩ = Σ_layers ⟨D_layer, Σ_t g_t a_tᵀ⟩ = Σ_layers Σ_t g_tᵀ (D_layer applied to a_t)

So the share of position t is the gradient at the layer's output there times what the layer would
give with D as its parameters. That holds for every layer whose output is linear in its parameters:
linear layers, embeddings, norms, convolutions.

    direction = projected_direction(projection, v)     # v: what projected gradients are scored with
    found = position_shares(model, output, batch, plan, direction, length=128)
    found.positions.sum(1) + found.whole               # the scores
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attribution.trak.backward import backward
from engine.attribution.trak.gradients import untapped_gradients
from engine.attribution.trak.layer_gradients import BATCH_NORMS, CONVOLUTIONS, is_conv1d
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.own_parameters import OwnParameter
from engine.attribution.trak.plan import Batch, Output, Plan
from engine.attribution.trak.projection import Matrix, Projection

Direction = Mapping[str, Tensor]
"""A direction in parameter space: tensors by the name of the parameter; 0 for those left out."""


@dataclass(frozen=True)
class PositionShares:
    """How scores of b examples are made up.

    Attributes:
        positions: `[b, length]`.
        whole: `[b]`: the part that belongs to no single position, such as that of a layer behind a
            mean over positions.
    """

    positions: Tensor
    whole: Tensor


def position_shares(
    model: nn.Module,
    output: Output,
    batch: Batch,
    plan: Plan,
    direction: Direction,
    length: int,
    starts: Mapping[int, int] | None = None,
) -> PositionShares:
    """Split ⟨direction, gradient⟩ of each example over its positions.

    A layer without positions, such as a classification head, acts at position t where the outputs
    depend on the last layer with positions at t alone, as behind a [CLS] token. Otherwise its part
    belongs to the whole sequence, as do parameters without a gradient rule.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples.
        plan: From `plan_gradients`.
        direction: Its tensors have the parameters' shapes.
        length: Positions of the input, the tokens of a text with its padding.
        starts: How many positions a layer may have → which is its first. An encoder has other
            positions than a decoder. None: all layers have `length`.
    """
    size = len(next(iter(batch.values())))
    device = next(model.parameters()).device
    positions = torch.zeros(size, length, device=device)
    whole = torch.zeros(size, device=device)
    behind: list[Tensor] = []  # parts of layers behind the last one with positions
    reached = False
    starts = {length: 0} if starts is None else starts

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        nonlocal reached
        names = plan.layers[path]
        weight = direction.get(names.weight) if names.weight else None
        bias = direction.get(names.bias) if names.bias else None
        placed = _over_positions(layer, g, starts, length)
        if placed is not None and not reached:
            _place(behind, placed.abs_sum(g), positions, whole)
            reached = True
        if weight is None and bias is None:
            return
        parts = g * _applied(layer, a, weight, bias)
        if placed is not None:
            positions.add_(placed.sum(parts))
        elif reached:
            whole.add_(parts.flatten(1).sum(1))
        else:
            behind.append(parts.flatten(1).sum(1))

    backward(model, output, batch, layers_of(model, plan), consume, plan.examples)
    if not reached:
        whole += sum(behind, torch.zeros_like(whole))
    untapped = [name for name in plan.untapped if name in direction]
    if untapped:
        gradients = untapped_gradients(model, output, batch, untapped, plan.looped)
        whole += gradients @ torch.cat([direction[name].flatten() for name in untapped])
    return PositionShares(positions, whole)


def _place(behind: list[Tensor], reach: Tensor, positions: Tensor, whole: Tensor) -> None:
    """Add the parts of the last layers to the one position that they act at, or to the whole.

    Args:
        behind: Parts `[b]`.
        reach: `[b, length]`, 0 where the outputs do not depend on a position.
    """
    if not behind:
        return
    total = torch.stack(behind).sum(0)
    single = (reach > 0).sum(1) == 1
    where = reach.argmax(1, keepdim=True)
    positions.scatter_add_(1, where, torch.where(single, total, 0.0)[:, None])
    whole += torch.where(single, 0.0, total)


@dataclass(frozen=True)
class _Placed:
    """The dimension of a layer's output that runs over positions, which is its first, and how many
    there are in all."""

    dimension: int
    start: int
    length: int

    def sum(self, parts: Tensor) -> Tensor:
        """`[b, length]`: the sum over all other dimensions; 0 at positions of other layers."""
        found = parts.movedim(self.dimension, 1).flatten(2).sum(2)
        return F.pad(found, (self.start, self.length - self.start - found.shape[1]))

    def abs_sum(self, parts: Tensor) -> Tensor:
        return self.sum(parts.abs())


def _over_positions(
    layer: nn.Module, g: Tensor, starts: Mapping[int, int], length: int
) -> _Placed | None:
    """Where an output gradient `[b, …]` runs over positions; None if nowhere."""
    channels = 1 if isinstance(layer, (*CONVOLUTIONS, *BATCH_NORMS, nn.GroupNorm)) else g.ndim - 1
    for dimension in range(1, g.ndim):
        if dimension != channels and g.shape[dimension] in starts:
            return _Placed(dimension, starts[g.shape[dimension]], length)
    return None


def _applied(layer: nn.Module, a: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The layer's output with other parameters; those that are None count as 0."""
    if isinstance(layer, OwnParameter):
        assert weight is not None
        return weight  # broadcasts: it has fewer dimensions, or its first one has size 1
    if isinstance(layer, nn.Linear):
        found = a.new_zeros(()) if weight is None else F.linear(a, weight)
        return found if bias is None else found + bias
    if is_conv1d(layer):
        found = a.new_zeros(()) if weight is None else a @ weight
        return found if bias is None else found + bias
    if isinstance(layer, nn.Embedding):
        assert weight is not None
        rows = F.embedding(a, weight)
        return rows if layer.padding_idx is None else rows * (a != layer.padding_idx)[..., None]
    own = layer.weight
    assert isinstance(own, Tensor)
    weight = torch.zeros_like(own) if weight is None else weight
    if isinstance(layer, CONVOLUTIONS):
        convolved: Tensor = layer._conv_forward(a, weight, bias)
        return convolved
    if isinstance(layer, BATCH_NORMS):
        mean, variance = layer.running_mean, layer.running_var
        return F.batch_norm(a, mean, variance, weight, bias, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(a, layer.num_groups, weight, bias, layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(a, layer.normalized_shape, weight, bias, layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return F.rms_norm(a, layer.normalized_shape, weight, layer.eps)
    raise AssertionError(f"no rule for {type(layer).__name__}")


def projected_direction(
    model: nn.Module, projection: Projection, vector: Tensor
) -> dict[str, Tensor]:
    """The direction D with ⟨D, ∇f⟩ = vector · (projected ∇f), for every gradient.

    Args:
        model: The checkpoint's.
        projection: Of this checkpoint.
        vector: `[proj_dim]`.
    """
    wide = vector
    if projection.signs is not None:
        wide = (projection.signs * vector).flatten()[: projection.width]
    plan = projection.plan
    convolutions = {
        plan.layers[path].weight
        for path, layer in layers_of(model, plan).items()
        if isinstance(layer, CONVOLUTIONS)
    }
    found = {}
    for name, matrix in projection.matrices.items():
        block = wide[matrix.start : matrix.start + matrix.width]
        found[name] = _unprojected(matrix, block, plan.shapes[name], name in convolutions)
    if projection.rest:
        rest = wide[projection.rest_start : projection.rest_start + projection.rest_width]
        joined = rest if projection.rest_left is None else projection.rest_left @ rest
        for name, start in projection.rest.items():
            shape = plan.shapes[name]
            found[name] = joined[start : start + shape.numel()].view(shape)
    return found


def _unprojected(matrix: Matrix, block: Tensor, shape: torch.Size, convolution: bool) -> Tensor:
    """P_out V P_inᵀ as a parameter; columns of a convolution run over (kernel, in)."""
    p_in = shape[1:].numel() if matrix.right is None else matrix.right.shape[1]
    if matrix.left is not None:
        p_in = len(block) // matrix.left.shape[1]
    found = block.view(-1, p_in)
    found = found if matrix.left is None else matrix.left @ found
    found = found if matrix.right is None else found @ matrix.right.T
    if convolution:
        return found.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
    return found.reshape(shape)
