"""BatchNorm's running statistics: part of what a step changes, and of what an output depends on.

In train mode a BatchNorm layer mixes the statistics of the batch into its running ones, which only
predictions use. torch differentiates neither the mixing nor the use, so both are done here, from
the layers' inputs. So layers that subclass torch's (those of timm) work, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Running = tuple[Tensor, Tensor]
"""Adjoints `[outputs, channels]` of a layer's running mean and running variance."""


def counting_layers(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics in the mode that the model is in."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
    ]


def running_buffers(model: nn.Module) -> set[str]:
    """Names of the buffers that BatchNorm layers change while training."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    }


@contextlib.contextmanager
def inputs_seen(layers: Sequence[_BatchNorm]) -> Iterator[dict[_BatchNorm, list[Tensor]]]:
    """Collect the inputs of each layer, one for each time that it is called.

    They are new tensors of the graph that only the layer uses.
    """
    seen: dict[_BatchNorm, list[Tensor]] = {layer: [] for layer in layers}

    def collect(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        own = first.view_as(first)
        seen[layer].append(own)  # type: ignore[index]
        return (own, *args[1:])

    handles = [layer.register_forward_pre_hook(collect) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Mixed:
    """What one step mixes into running statistics: layers' inputs, and their adjoints by it."""

    inputs: list[Tensor]
    adjoints: list[Tensor]


def pull_back_mixing(
    running: Sequence[Running], seen: dict[_BatchNorm, list[Tensor]]
) -> tuple[list[Running], Mixed]:
    """From adjoints of the statistics after a step: those before it, and of what it mixed in.

    A step mixes in the mean and the unbiased variance over all dimensions but the channels'.

    Args:
        running: Of each layer in `seen`, after the step.
        seen: Each layer's inputs in the step, as of `inputs_seen`.
    """
    before: list[Running] = []
    mixed = Mixed([], [])
    for (mean, variance), (layer, inputs) in zip(running, seen.items(), strict=True):
        for number, values in reversed(list(enumerate(inputs))):
            share = layer.momentum
            if share is None:  # the mean over all batches so far; it has just counted this step's
                assert layer.num_batches_tracked is not None
                share = 1 / (int(layer.num_batches_tracked) - len(inputs) + number + 1)
            over = [dimension for dimension in range(values.ndim) if dimension != 1]
            count = values.numel() // values.shape[1]
            centered = values.detach() - values.detach().mean(over, keepdim=True)
            shape = [len(mean), 1, -1, *[1] * (values.ndim - 2)]
            of_mean, of_variance = share * mean / count, share * variance * 2 / (count - 1)
            mixed.inputs.append(values)
            mixed.adjoints.append((of_variance.view(shape) * centered).add_(of_mean.view(shape)))
            mean, variance = (1 - share) * mean, (1 - share) * variance
        before.append((mean, variance))
    return before, mixed


def pull_back_use(
    layer: _BatchNorm, inputs: Sequence[Tensor], adjoints: Sequence[Tensor], outputs: int
) -> Running:
    """Adjoints of running statistics from those of a layer's inputs, in eval mode.

    The layer gives a function of (x − mean) / √(variance + ε).

    Args:
        adjoints: Of each input, `[outputs, ...]`.
    """
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean = torch.zeros(outputs, len(layer.running_mean)).to(layer.running_mean)
    variance = torch.zeros_like(mean)
    for values, adjoint in zip(inputs, adjoints, strict=True):
        shape = [1, -1, *[1] * (values.ndim - 2)]
        over = [dimension for dimension in range(adjoint.ndim) if dimension not in (0, 2)]
        centered = values.detach() - layer.running_mean.view(shape)
        mean -= adjoint.sum(over)
        variance -= (adjoint * centered).sum(over) / (2 * (layer.running_var + layer.eps))
    return mean, variance
