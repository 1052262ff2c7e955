"""The per-example gradient of each kind of layer, from its input a and output gradient g."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attribution.trak.own_parameters import OwnParameter

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_IN_CACHE = 2**18
"""Numbers that `_of_each_channel` multiplies at a time."""


def is_conv1d(layer: nn.Module) -> bool:
    """Whether this is the linear layer `x W + b` of GPT-2 in transformers, W `[in, out]`."""
    kind = type(layer)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def weight_gradient(layer: nn.Module, a: Tensor, g: Tensor, bias: Tensor | None = None) -> Tensor:
    """Per-example gradient `[batch, *weight.shape]` from one use of a layer.

    Args:
        layer: A layer of `Plan.layers`.
        a: Its input.
        g: Gradient of the model outputs with respect to its output.
        bias: `bias_gradient` of the same use, if already computed.
    """
    b = len(g)
    if isinstance(layer, nn.Linear):
        return positions_of(g).transpose(1, 2) @ positions_of(a)
    if is_conv1d(layer):
        return positions_of(a).transpose(1, 2) @ positions_of(g)
    if isinstance(layer, OwnParameter):
        return g.reshape(b, *layer.weight.shape)
    if isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels:
        return _of_each_channel(layer, a, g)
    if isinstance(layer, CONVOLUTIONS):
        groups = layer.groups
        cut = patches(layer, a)  # [b, positions, kernel, in]
        cut = cut.unflatten(-1, (groups, -1)).permute(0, 3, 1, 4, 2)  # [b, group, t, in, kernel]
        out = positions_of(g, channels=1).unflatten(-1, (groups, -1)).permute(0, 2, 3, 1)
        gradient: Tensor = out @ cut.flatten(3)
        return gradient.reshape(b, *layer.weight.shape)
    if isinstance(layer, nn.Embedding):
        return scatter_rows(embedding_rows(layer, a, g), a, layer.num_embeddings)
    if isinstance(layer, BATCH_NORMS):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        bias = _over_positions(g) if bias is None else bias
        centered = torch.addcmul(_over_positions(g * a), bias, layer.running_mean, value=-1)
        return centered * (layer.running_var + layer.eps).rsqrt()
    if isinstance(layer, nn.GroupNorm):
        return _over_positions(g * F.group_norm(a, layer.num_groups, eps=layer.eps))
    if isinstance(layer, nn.LayerNorm):
        normal = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
        return _leading(g * normal, len(layer.normalized_shape))
    if isinstance(layer, nn.RMSNorm):
        normal = F.rms_norm(a, layer.normalized_shape, eps=layer.eps)
        return _leading(g * normal, len(layer.normalized_shape))
    raise AssertionError(f"no rule for {type(layer).__name__}")


def bias_gradient(layer: nn.Module, g: Tensor) -> Tensor:
    """Per-example gradient `[batch, *bias.shape]` from one use of a layer."""
    if isinstance(layer, nn.Linear) or is_conv1d(layer):
        return _leading(g, 1)
    if isinstance(layer, nn.LayerNorm):
        return _leading(g, len(layer.normalized_shape))
    return _over_positions(g)


def positions_of(tensor: Tensor, channels: int = -1) -> Tensor:
    """`[batch, ..., channels, ...]` → `[batch, positions, channels]`; no copy if channels-last."""
    b = len(tensor)
    last = tensor.movedim(channels, -1)
    return last.reshape(b, -1, last.shape[-1])


def patches(layer: nn.Module, a: Tensor) -> Tensor:
    """The input patches of a convolution: `[batch, positions, kernel, in]`.

    The same as `torch.nn.functional.unfold`, for any number of dimensions.
    """
    assert isinstance(layer, CONVOLUTIONS)
    view = _windows(layer, a)
    return view.reshape(len(a), -1, torch.Size(layer.kernel_size).numel(), view.shape[-1])


def _windows(layer: nn.Module, a: Tensor) -> Tensor:
    """The input patches of a convolution, `[batch, *positions, *kernel, in]`, without a copy."""
    assert isinstance(layer, CONVOLUTIONS)
    a, padding = _padded(layer, a)
    if any(padding):
        a = F.pad(a, [side for size in reversed(padding) for side in (size, size)])
    a = a.movedim(1, -1).contiguous()
    sizes, strides = a.shape[1:-1], a.stride()[1:-1]
    counts = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(
            sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True
        )
    ]
    return a.as_strided(
        (len(a), *counts, *layer.kernel_size, a.shape[-1]),
        (
            a.stride(0),
            *(stride * step for stride, step in zip(strides, layer.stride, strict=True)),
            *(stride * step for stride, step in zip(strides, layer.dilation, strict=True)),
            1,
        ),
    )


def _of_each_channel(layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
    """`weight_gradient` of a convolution that keeps channels apart (depthwise).

    Each weight is multiplied by one shifted input, so no patches are copied. On a processor a few
    examples at a time stay in its cache, which takes half as long.
    """
    assert isinstance(layer, CONVOLUTIONS)
    windows, g = _windows(layer, a), g.movedim(1, -1)
    spatial = g.ndim - 2
    kernel = list(itertools.product(*map(range, layer.kernel_size)))
    everywhere: tuple[slice, ...] = (slice(None),) * spatial
    found = g.new_empty(len(g), len(kernel), g.shape[-1])
    at_once = max(1, _IN_CACHE // g[0].numel()) if g.device.type == "cpu" else len(g)
    for start in range(0, len(g), at_once):
        rows = slice(start, start + at_once)
        for number, place in enumerate(kernel):
            where: tuple[slice | int, ...] = (rows, *everywhere, *place)
            product = windows[where] * g[rows]
            found[rows, number] = product.flatten(1, spatial).sum(1)
    return found.transpose(1, 2).reshape(len(g), *layer.weight.shape)


def convolve(layer: nn.Module, a: Tensor, kernels: Tensor) -> Tensor:
    """Convolve as the layer does, but with other kernels `[new, in, *kernel]` and no bias."""
    assert isinstance(layer, CONVOLUTIONS)
    a, padding = _padded(layer, a)
    function = (F.conv1d, F.conv2d, F.conv3d)[len(layer.kernel_size) - 1]
    result: Tensor = function(
        a, kernels, stride=layer.stride, padding=padding, dilation=layer.dilation
    )
    return result


def _padded(layer: nn.Module, a: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """(input, zero padding still to apply). Uneven and non-zero padding is applied here."""
    assert isinstance(layer, CONVOLUTIONS)
    if isinstance(layer.padding, tuple) and layer.padding_mode == "zeros":
        return a, layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(a, layer._reversed_padding_repeated_twice, mode), (0,) * len(layer.kernel_size)


def embedding_rows(layer: nn.Embedding, ids: Tensor, g: Tensor) -> Tensor:
    """Gradient `[batch, positions, features]` of each row that was looked up; 0 for padding."""
    rows = g.reshape(len(g), -1, g.shape[-1])
    if layer.padding_idx is None:
        return rows
    return rows * (ids.reshape(len(ids), -1, 1) != layer.padding_idx)


def scatter_rows(rows: Tensor, ids: Tensor, size: int) -> Tensor:
    """Sum rows `[batch, positions, features]` into tables `[batch, size, features]` by ids."""
    table = rows.new_zeros(len(rows), size, rows.shape[-1])
    return table.scatter_add_(1, ids.reshape(len(ids), -1, 1).expand_as(rows), rows)


def _over_positions(tensor: Tensor) -> Tensor:
    """Sum `[batch, channels, ...]` over all but batch and channels."""
    return tensor.sum(tuple(range(2, tensor.ndim))) if tensor.ndim > 2 else tensor


def _leading(tensor: Tensor, kept: int) -> Tensor:
    """Sum `[batch, ..., *kept]` over the dimensions between the batch and the last `kept`."""
    between = tuple(range(1, tensor.ndim - kept))
    return tensor.sum(between) if between else tensor
