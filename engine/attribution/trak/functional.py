"""Watch functions of torch.nn.functional, where parameters are used without a layer's `forward`.

Some modules call a function on their parameters: subclasses that change their input first, modules
that use the weight of another one, nn.MultiheadAttention. The function computes what a layer would,
so the layer's gradient rule holds. Such a use is `NAME@KIND` among a plan's layers, for the weight
NAME and a KIND of `LAYERS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_ARGUMENTS: dict[Any, tuple[str, tuple[str, ...]]] = {
    F.linear: ("linear", ("input", "weight", "bias")),
    F.conv1d: ("conv1d", _CONVOLUTION),
    F.conv2d: ("conv2d", _CONVOLUTION),
    F.conv3d: ("conv3d", _CONVOLUTION),
    F.embedding: ("embedding", tuple(inspect.signature(F.embedding).parameters)),
    F.batch_norm: ("batch_norm", tuple(inspect.signature(F.batch_norm).parameters)),
    F.group_norm: ("group_norm", tuple(inspect.signature(F.group_norm).parameters)),
    F.layer_norm: ("layer_norm", tuple(inspect.signature(F.layer_norm).parameters)),
    F.rms_norm: ("rms_norm", ("input", "normalized_shape", "weight", "eps")),
}
_ATTENTION = inspect.signature(F.multi_head_attention_forward)

_KINDS: dict[str, Any] = {
    # Without initial values: they take longer to draw than small layers to compute.
    kind: type(layer.__name__, (layer,), {"reset_parameters": lambda self: None})
    for kind, layer in (
        ("linear", nn.Linear),
        ("conv1d", nn.Conv1d),
        ("conv2d", nn.Conv2d),
        ("conv3d", nn.Conv3d),
        ("embedding", nn.Embedding),
        ("batch_norm", nn.BatchNorm1d),
        ("group_norm", nn.GroupNorm),
        ("layer_norm", nn.LayerNorm),
        ("rms_norm", nn.RMSNorm),
    )
}

_OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": (),
    **dict.fromkeys(_CONVOLUTIONS, _CONVOLUTION[3:]),
    "embedding": ("padding_idx",),
    **dict.fromkeys(("batch_norm", "group_norm", "layer_norm", "rms_norm"), ("eps",)),
}
"""What else the gradient rule of a layer depends on."""

Called = Callable[[str, nn.Module, Tensor, Tensor, Tensor | None], Tensor]
"""Receives (name of the use, layer, its input, its result, its bias); returns the result to go on
with."""


def use_layer(kind: str, weight: Tensor, options: Mapping[str, Any]) -> nn.Module:
    """A layer that computes the same as a function, with this weight. It is never called.

    Args:
        options: The function's other arguments by name, as far as they are known.
    """
    given = {name: options[name] for name in _OPTIONS[kind] if name in options}
    if kind in _CONVOLUTIONS or kind == "linear":
        given["bias"] = False
    if kind == "linear":
        sizes: tuple[Any, ...] = (weight.shape[1], weight.shape[0])
    elif kind in _CONVOLUTIONS:
        sizes = (weight.shape[1] * given.get("groups", 1), len(weight), weight.shape[2:])
    elif kind == "embedding":
        sizes = tuple(weight.shape)
    elif kind == "batch_norm":
        sizes = (len(weight),)
    elif kind == "group_norm":
        sizes = (options.get("num_groups", 1), len(weight))
    else:
        sizes = (weight.shape,)
    layer: nn.Module = _KINDS[kind](*sizes, **given, device="meta")
    layer.weight = weight  # type: ignore[assignment]
    if kind == "batch_norm":
        layer.register_buffer("running_mean", options.get("running_mean"))
        layer.register_buffer("running_var", options.get("running_var"))
    return layer


def layer_of_use(model: nn.Module, path: str) -> nn.Module:
    """The layer of a use `NAME@KIND`, with the options of the module that holds the weight."""
    name, _, kind = path.rpartition("@")
    holder = model.get_submodule(name.rpartition(".")[0])
    return use_layer(kind, model.get_parameter(name), vars(holder) | holder._buffers)


def is_use(path: str) -> bool:
    """Whether a layer's name is that of a use of a function."""
    return "@" in path


class Functions(TorchFunctionMode):
    """Within this context calls of functions with a watched weight are passed on."""

    def __init__(self, names: Mapping[int, str], called: Called) -> None:
        """
        Args:
            names: Name of each watched weight by its `id`.
            called: Told of every call.
        """
        super().__init__()
        self.names = names
        self.called = called

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            call = _ATTENTION.bind(*args, **kwargs)
            call.apply_defaults()
            if _is_plain(call.arguments):
                with self:  # its linear functions are watched, too
                    return _attend(call.arguments)
        result = func(*args, **kwargs)
        if func not in _ARGUMENTS:
            return result
        kind, names = _ARGUMENTS[func]
        given = dict(zip(names, args, strict=False)) | kwargs
        weight = given.get("weight")
        name = self.names.get(id(weight))
        changing = given.get("max_norm") or given.get("sparse") or given.get("scale_grad_by_freq")
        mixing = kind == "batch_norm" and given.get("training")
        if name is None or changing or mixing or (kind == "linear" and weight.ndim != 2):
            return result
        layer = use_layer(kind, weight, given)
        return self.called(f"{name}@{kind}", layer, given["input"], result, given.get("bias"))


def _is_plain(call: Mapping[str, Any]) -> bool:
    """Whether `_attend` computes this call of `F.multi_head_attention_forward`."""
    odd = ("bias_k", "bias_v", "static_k", "static_v")
    return (
        call["query"].ndim == 3
        and not call["use_separate_proj_weight"]
        and not call["add_zero_attn"]
        and all(call[name] is None for name in odd)
        and not (call["training"] and call["dropout_p"] > 0)
        and not (call["is_causal"] and call["attn_mask"] is None)
    )


def _attend(call: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward` in steps whose linear functions are applied to whole
    parameters and keep positions and examples apart: `[positions, batch, features]`."""
    query, key, value = call["query"], call["key"], call["value"]
    weight, bias, heads = call["in_proj_weight"], call["in_proj_bias"], call["num_heads"]
    if query is key and key is value:
        parts = F.linear(query, weight, bias).chunk(3, -1)
    else:
        parts = tuple(
            F.linear(tensor, weight, bias).chunk(3, -1)[number]
            for number, tensor in enumerate((query, key, value))
        )
    q, k, v = (part.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for part in parts)
    mask = _mask(call["attn_mask"], call["key_padding_mask"], heads, q)
    weights = None
    if call["need_weights"]:
        similar = q @ k.mT * q.shape[-1] ** -0.5
        weights = (similar if mask is None else similar + mask).softmax(-1)
        attended = weights @ v
        weights = weights.mean(1) if call["average_attn_weights"] else weights
    else:
        attended = F.scaled_dot_product_attention(q, k, v, mask)
    joined = attended.permute(2, 0, 1, 3).flatten(2)
    return F.linear(joined, call["out_proj_weight"], call["out_proj_bias"]), weights


def _mask(attn: Tensor | None, padding: Tensor | None, heads: int, q: Tensor) -> Tensor | None:
    """Both masks as one that is added to the similarities `[batch, heads, queries, keys]`."""
    found = None
    if attn is not None:
        attn = _additive(attn, q)
        found = attn if attn.ndim == 2 else attn.unflatten(0, (-1, heads))
    if padding is not None:
        padding = _additive(padding, q)[:, None, None]
        found = padding if found is None else found + padding
    return found


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)
