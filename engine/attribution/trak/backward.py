"""One forward and one activation-only backward pass that record each layer's input and gradient.

Parameters do not require gradients while this runs, so autograd computes no weight gradient. Hooks
on the layers record the input (a) and, during the backward pass, the gradient of the model output
with respect to the layer's output (g). The gradient of every parameter of the layer follows from
these two, example by example, because row i of the model output depends on example i alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from engine.attribution.trak.functional import Functions, is_use
from engine.attribution.trak.own_parameters import OwnParameter, laid_out
from engine.attribution.trak.plan import Batch, Examples, Output, size_of

Consumer = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Receives (layer name, layer, its input a, gradient g of the outputs at its output).

The input of an `OwnParameter` is its output gradient again: it has none."""


class _Start(torch.autograd.Function):
    """Makes a layer's output the start of the graph, without copying it and without a leaf.

    A leaf would forbid the in-place activations that often follow.
    """

    @staticmethod
    def forward(ctx: Any, result: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:  # type: ignore[override]
        return None, None


def backward(
    model: nn.Module,
    output: Output,
    batch: Batch,
    layers: Mapping[str, nn.Module],
    consume: Consumer,
    examples: Mapping[str, Examples] = MappingProxyType({}),
) -> Tensor:
    """Run one forward and one activation-only backward pass; pass (a, g) of each layer on.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples.
        layers: The layers to observe, by name.
        consume: Called once for every use of a layer, last layer first, while the gradient is
            still in the processor's cache. It must not keep or change the tensors it receives.
        examples: `Layer.examples` of the layers where it is not `first`, by name.

    Returns:
        Model outputs `[batch]`, detached.
    """
    anchor = torch.zeros((), requires_grad=True)
    size = size_of(batch)
    handles = []

    def observed(path: str, layer: nn.Module, a: Tensor, result: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # by the model itself: no gradient passes here
            return result
        a = in_single_precision(a.detach())
        where = examples.get(path, "first")
        if where == "shared":
            a, result = for_each_example(layer, a, result, size)
        else:
            a = _examples_first(a, where, size)
        if not result.requires_grad:
            result = _Start.apply(result, anchor)  # type: ignore[no-untyped-call]
        # The hook belongs to this tensor, so a later in-place activation does not disturb it.
        result.register_hook(lambda g: pass_on(path, layer, a, g, where))
        return result

    def tap(path: str) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, args: Any, kwargs: Any, result: Tensor) -> Tensor:
            return observed(path, layer, input_of(args, kwargs), result)

        return hook

    def called(
        path: str, layer: nn.Module, a: Tensor, result: Tensor, bias: Tensor | None
    ) -> Tensor:
        return observed(path, layer, a, result) if path in layers else result

    def pass_on(path: str, layer: nn.Module, a: Tensor, g: Tensor, where: Examples) -> None:
        g = _examples_first(g, where, size)
        consume(path, layer, a, in_single_precision(g))

    def found(path: str, own: OwnParameter, g: Tensor) -> None:
        g = in_single_precision(g)
        consume(path, own, g, g)

    watched = {
        id(layer.weight): path.rpartition("@")[0] for path, layer in layers.items() if is_use(path)
    }
    with frozen(model), torch.enable_grad(), laid_out(layers, size, found):
        for path, layer in layers.items():
            handles.append(layer.register_forward_hook(tap(path), with_kwargs=True))
        try:
            with Functions(watched, called) if watched else contextlib.nullcontext():
                values = output(model, _channels_last(batch))
        finally:
            for handle in handles:
                handle.remove()
        if values.requires_grad:
            values.sum().backward()
    return values.detach()


def for_each_example(
    layer: nn.Module, a: Tensor, result: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The input and the result of one call for a whole batch, repeated for each example.

    Both are `[1, …]`, or `[…]` for an embedding. Nothing is copied.
    """
    if len(a) == 1 and a.ndim > 1:
        a, result = a.expand(size, *a.shape[1:]), result.expand(size, *result.shape[1:])
    elif isinstance(layer, nn.Embedding):
        a, result = a.expand(size, *a.shape), result.expand(size, *result.shape)
    # Else the layer's input was repeated already, by the layer before it.
    return a, result if result.requires_grad else result.detach().requires_grad_(True)


def _examples_first(tensor: Tensor, where: Examples, size: int) -> Tensor:
    if where == "second":
        return tensor.transpose(0, 1)
    return tensor.unflatten(0, (size, -1)) if where == "folded" else tensor


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within this context no parameter requires gradients; afterwards the flags are restored."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _channels_last(batch: Batch) -> Batch:
    return {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in batch.items()
    }


def in_single_precision(tensor: Tensor) -> Tensor:
    """Floating-point numbers as float32, whatever precision a layer computes in."""
    return tensor.float() if tensor.is_floating_point() else tensor


def input_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The input of a layer, from the arguments that a forward hook receives."""
    value = args[0] if args else kwargs["input"]
    assert isinstance(value, Tensor)
    return value
