"""Common operations with second derivatives that cost about what first ones do.

torch puts the second derivatives of batch normalization, of smooth activations and of convolutions
together from many passes over memory, and computes gradients of weights where only their
derivatives are asked. The walk back spends its time there. Inside `cheap_second_derivatives` these
operations are our own, with the same values; everything else is torch's.

Each has a function for its first derivative, whose own derivative is written out. With g the
gradient of an output, v that of a gradient, and x̄ that of x:

    y = φ(x):    g_x = g φ′                          x̄ = v g φ″      ḡ = v φ′
    y = x Wᵀ:    g_x = g W, g_W = gᵀ x               x̄ = g v_W       ḡ = v_x Wᵀ + x v_Wᵀ
                                                     W̄ = gᵀ v_x
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class CheapSecondDerivatives(TorchFunctionMode):
    """Replace operations while it is entered.

    Args:
        values: Whether the values of the weights' gradients are wanted; else those of linear and
            convolution layers are 0, and only their derivatives are right.
    """

    def __init__(self, values: bool) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ACTIVATIONS:
            return _activation(func, args, kwargs)
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func is functional.linear:
            return _linear(self._values, *args, **kwargs)
        if func in _CONVOLUTIONS:
            return _convolution(func, self._values, *args, **kwargs)
        return func(*args, **kwargs)


def _applied(function: Any, *arguments: Any) -> Any:
    """`Function.apply`, which torch has no types for."""
    return function.apply(*arguments)


# --- activations ---------------------------------------------------------------------------------

_ACTIVATIONS: set[Any] = {
    functional.gelu,
    functional.silu,
    functional.mish,
    functional.elu,
    functional.softplus,
    torch.tanh,
    torch.sigmoid,
    torch.Tensor.tanh,
    torch.Tensor.sigmoid,
}
"""Functions of each element. Piecewise linear ones, such as ReLU, are cheap in torch."""


def _activation(
    func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    inputs = args[0] if args else None
    in_place = kwargs.get("inplace", False) or any(one is True for one in args[1:])
    if inputs is None or in_place or not inputs.requires_grad:
        return func(*args, **kwargs)
    x = inputs.detach()
    if func is functional.gelu and kwargs.get("approximate", "none") == "none" and len(args) == 1:
        found = _gelu(x)
    else:
        found = _differentiated(lambda one: func(one, *args[1:], **kwargs), x)
    output: Tensor = _applied(_Activation, inputs, *found)
    return output


def _gelu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x Φ(x), and its first and second derivative."""
    below = torch.erf(x * math.sqrt(0.5)).add_(1).mul_(0.5)
    square = x * x
    density = torch.exp(square * -0.5).mul_(1 / math.sqrt(2 * math.pi))
    value = x * below
    first = below.addcmul_(x, density)
    return value, first, square.neg_().add_(2).mul_(density)


def _differentiated(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        x = x.requires_grad_()
        value = function(x)
        (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    return value.detach(), first.detach(), second


class _Activation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(x, first, second)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, first, second = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _applied(_ActivationBack, gradient, x, first, second), None, None, None
        return gradient * first, None, None, None


class _ActivationBack(Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, first, second)
        return gradient * first

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        gradient, first, second = ctx.saved_tensors
        return v * first, v * (gradient * second), None, None


# --- linear layers -------------------------------------------------------------------------------


def _linear(values: bool, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if inputs.ndim < 2 or not weight.requires_grad or inputs.dtype != weight.dtype:
        return functional.linear(inputs, weight, bias)
    output: Tensor = _applied(_Linear, inputs.flatten(0, -2), weight, bias, values)
    return output.unflatten(0, inputs.shape[:-1]) if inputs.ndim > 2 else output


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, values: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.values, ctx.wants = values, x.requires_grad
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = ctx.wants
        of_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        if torch.is_grad_enabled():
            return *_applied(_LinearBack, gradient, x, weight, wants, ctx.values), of_bias, None
        return gradient @ weight if wants else None, gradient.T @ x, of_bias, None


class _LinearBack(Function):
    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, wants: bool, values: bool
    ) -> tuple[Tensor | None, Tensor]:
        ctx.save_for_backward(gradient, x, weight)
        ctx.set_materialize_grads(False)
        ctx.wants = wants
        of_weight = gradient.T @ x if values else torch.zeros_like(weight)
        return gradient @ weight if wants else None, of_weight

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, of_weight: Tensor | None) -> tuple[Any, ...]:
        gradient, x, weight = ctx.saved_tensors
        parts = []
        if v is not None:
            parts.append(v @ weight.T)
        if of_weight is not None:
            parts.append(x @ of_weight.mT)
        return (
            sum(parts) if parts else None,
            gradient @ of_weight if ctx.wants and of_weight is not None else None,
            gradient.T @ v if v is not None else None,
            None,
            None,
        )


# --- convolutions --------------------------------------------------------------------------------

_CONVOLUTIONS: dict[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


def _convolution(
    func: Callable[..., Tensor],
    values: bool,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    n = _CONVOLUTIONS[func]
    plain = isinstance(padding, str) or inputs.ndim != n + 2 or not weight.requires_grad
    if plain or inputs.dtype != weight.dtype:
        return func(inputs, weight, bias, stride, padding, dilation, groups)
    assert not isinstance(padding, str)
    sizes = tuple(_repeated(one, n) for one in (stride, padding, dilation))
    output: Tensor = _applied(_Convolution, inputs, weight, (*sizes, groups), values)
    return output if bias is None else output + bias.view(-1, *[1] * n)


def _repeated(size: int | Sequence[int], n: int) -> list[int]:
    found = [size] if isinstance(size, int) else list(size)
    return found * n if len(found) == 1 else found


def _forwards(x: Tensor, weight: Tensor, how: Any) -> Tensor:
    stride, padding, dilation, groups = how
    found: Tensor = torch.ops.aten.convolution(
        x, weight, None, stride, padding, dilation, False, [0] * len(stride), groups
    )
    return found


def _backwards(
    gradient: Tensor, x: Tensor, weight: Tensor, how: Any, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """(gradient of x, which needs the weight; gradient of the weight, which needs x)."""
    stride, padding, dilation, groups = how
    if not any(wants):
        return None, None
    found = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0] * len(stride),
        groups,
        [*wants, False],
    )
    return found[0], found[1]


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, how: Any, values: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.values, ctx.wants = how, values, x.requires_grad
        return _forwards(x, weight, how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = _applied(_ConvolutionBack, gradient, x, weight, ctx.how, ctx.wants, ctx.values)
        else:
            found = _backwards(gradient, x, weight, ctx.how, (ctx.wants, True))
        return *found, None, None


class _ConvolutionBack(Function):
    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        how: Any,
        wants: bool,
        values: bool,
    ) -> tuple[Tensor | None, Tensor]:
        ctx.save_for_backward(gradient, x, weight)
        ctx.set_materialize_grads(False)
        ctx.how, ctx.wants = how, wants
        of_x, of_weight = _backwards(gradient, x, weight, how, (wants, values))
        return of_x, torch.zeros_like(weight) if of_weight is None else of_weight

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, of_weight: Tensor | None) -> tuple[Any, ...]:
        gradient, x, weight = ctx.saved_tensors
        parts = []
        if v is not None:
            parts.append(_forwards(v, weight, ctx.how))
        if of_weight is not None:
            parts.append(_forwards(x, of_weight, ctx.how))
        for_x = for_weight = None
        if ctx.wants and of_weight is not None:
            for_x, _ = _backwards(gradient, x, of_weight, ctx.how, (True, False))
        if v is not None:
            _, for_weight = _backwards(gradient, v, weight, ctx.how, (False, True))
        return sum(parts) if parts else None, for_x, for_weight, None, None, None


# --- batch normalization -------------------------------------------------------------------------


def _batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Running statistics stay as they are: the walk back asks for none."""
    if not training or not inputs.requires_grad:
        return functional.batch_norm(
            inputs, running_mean, running_var, weight, bias, training, momentum, eps
        )
    channels = inputs.shape[1]
    weight = torch.ones(channels).to(inputs) if weight is None else weight
    bias = torch.zeros(channels).to(inputs) if bias is None else bias
    output: Tensor = _applied(_BatchNorm, inputs, weight, bias, eps)
    return output


class _BatchNorm(Function):
    """y = γ x̂ + β, x̂ = (x − mean) r, r = 1 / √(variance + ε), over all but the channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        output, mean, inverse = torch.native_batch_norm(x, weight, bias, None, None, True, 0, eps)
        normalized = (x * _wide(inverse, x)).sub_(_wide(mean * inverse, x))
        ctx.save_for_backward(x, weight, normalized, inverse)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, normalized, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_applied(_BatchNormBack, gradient, x, weight, normalized, inverse), None
        return *_pull_back(gradient, weight, normalized, inverse), None


class _BatchNormBack(Function):
    """g_x = γ r (g − a − x̂ b), g_γ = n b and g_β = n a, with the means a of g and b of g x̂."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, normalized: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(gradient, weight, normalized, inverse)
        return _pull_back(gradient, weight, normalized, inverse)

    @staticmethod
    def backward(
        ctx: Any, v: Tensor, of_weight: Tensor, of_bias: Tensor
    ) -> tuple[Tensor | None, ...]:
        """With means c of v and d of v x̂, and q = Σ v g − n (a c + b d):

        s = ⟨v, g_x⟩ + v_γ g_γ + v_β g_β = γ r q + n b v_γ + n a v_β
        ∂s/∂x̂ = −γ r (b v + d g) + v_γ g,   ∂s/∂r = γ q,   ∂r/∂x = −r² x̂ / n
        """
        gradient, weight, normalized, inverse = ctx.saved_tensors
        over, count = _over(normalized), normalized.numel() // normalized.shape[1]
        a, b = gradient.mean(over), (gradient * normalized).mean(over)
        c, d = v.mean(over), (v * normalized).mean(over)
        q = (v * gradient).sum(over) - count * (a * c + b * d)
        scale = weight * inverse
        by_v, by_gradient = -scale * b, of_weight - scale * d
        along = by_v * d + by_gradient * b
        for_gradient = _mix(of_bias - scale * c, (v, scale), (normalized, by_gradient))
        for_x = _mix(
            -inverse * (by_v * c + by_gradient * a),
            (v, inverse * by_v),
            (gradient, inverse * by_gradient),
            (normalized, -inverse * along - weight * q * inverse.square() / count),
        )
        return for_gradient, for_x, inverse * q, None, None


def _pull_back(
    gradient: Tensor, weight: Tensor, normalized: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    over, count = _over(normalized), normalized.numel() // normalized.shape[1]
    total, along = gradient.sum(over), (gradient * normalized).sum(over)
    scale = weight * inverse / count
    of_x = _mix(-scale * total, (gradient, scale * count), (normalized, -scale * along))
    return of_x, along, total


def _mix(constant: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """constant + Σ tensor · factor, with constants and factors of each channel.

    The first part has every dimension that others have. Multiplying and adding in place is twice as
    fast as addcmul, which is slow where factors are broadcast.
    """
    found: Tensor | None = None
    for tensor, factor in parts:
        product = tensor * _wide(factor, tensor)
        found = product if found is None else found.add_(product)
    assert found is not None
    return found.add_(_wide(constant, parts[0][0]))


def _over(x: Tensor) -> list[int]:
    return [dimension for dimension in range(x.ndim) if dimension != 1]


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    return channels.view(-1, *[1] * (like.ndim - 2))
