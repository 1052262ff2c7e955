"""Per-example gradients from one forward and one activation-only backward.

Parameters do not require gradients while this runs, so autograd computes no weight gradient. Taps
on the layers record what a layer took in (a) and, during the backward, the gradient of the model
output with respect to what it gave out (g). From these two the gradient of every parameter of the
layer follows, example by example, because row i of the model output depends on example i alone.

Layers without a rule here, and parameters used in ways that a tap cannot see, go through
`torch.func` (or, where vmap has no rule either, a loop over examples): slower, always right.
Which parameter goes which way is decided once, by `plan_gradients`, which also proves it against
autograd on the example batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.store.errors import CheckpointError

Batch = dict[str, Tensor]
"""Tensors by name; the first dimension of each is the batch."""

Output = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) → model outputs `[batch]`; row i depends on example i alone."""

Consumer = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Receives (layer name, layer, its input a, gradient g of the outputs at its output)."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_COUPLING = (*_BATCH_NORMS, nn.SyncBatchNorm)
_TAPPED = (
    nn.Linear,
    *CONVOLUTIONS,
    nn.Embedding,
    *_BATCH_NORMS,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
PROOF_EXAMPLES = 16
_PROOF_NUMBERS = 32_000_000
"""The proof holds whole gradients: as many examples as fit in so many numbers, at least two."""


@dataclass(frozen=True)
class Layer:
    """A tapped layer: the canonical names of its parameters, None where it has none to attribute.

    Attributes:
        weight: Name of the weight in `Plan.shapes`.
        bias: Name of the bias.
        positions: How often the weight is applied to one example (pixels, tokens, calls).
    """

    weight: str | None
    bias: str | None
    positions: int


@dataclass(frozen=True)
class Plan:
    """How the gradient of each parameter is got. Holds names and numbers, no tensors.

    Attributes:
        shapes: Every attributed parameter, in the model's order.
        energies: Mean squared norm of each parameter's gradient over the first few examples.
        layers: Layer name → tapped layer.
        untapped: Parameters whose gradients come from `untapped_gradients`.
        looped: vmap has no rule for this model, so the untapped go example by example.
    """

    shapes: dict[str, torch.Size]
    energies: dict[str, float]
    layers: dict[str, Layer]
    untapped: tuple[str, ...]
    looped: bool

    @property
    def n_parameters(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())


# --- planning ----------------------------------------------------------------------------------


def plan_gradients(model: nn.Module, output: Output, batch: Batch) -> Plan:
    """Decide how each parameter's gradient is got and prove it on a few examples.

    Only parameters that require gradients are attributed. Convolution weights are laid out
    channels-last in memory (their values stay as they are), which is the fastest layout on CPUs.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples; the first `PROOF_EXAMPLES` are used.

    Raises:
        CheckpointError: Examples of a batch influence each other, or nothing can be attributed,
            or outputs or gradients are not finite.
    """
    check_uncoupled(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    few = head(batch, max(2, min(PROOF_EXAMPLES, _PROOF_NUMBERS // max(1, size))))
    _check_outputs(model, output, few)
    canonical = {
        id(p): name for name, p in model.named_parameters() if p.requires_grad
    }  # tied parameters have one name, the first
    shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    if not shapes:
        raise CheckpointError(
            "The model has no parameter that requires gradients, so there is nothing to attribute "
            "its outputs to."
        )
    holders = [
        (path, module)
        for path, module in model.named_modules()
        if any(id(p) in canonical for p in module._parameters.values() if p is not None)
    ]
    positions, misfits = _observe(model, output, few, dict(holders))
    layers: dict[str, Layer] = {}
    untapped: set[str] = set()
    for path, module in holders:
        owned = {
            key: canonical[id(p)]
            for key, p in module._parameters.items()
            if p is not None and id(p) in canonical
        }
        if path in positions and path not in misfits:
            layers[path] = Layer(owned.get("weight"), owned.get("bias"), positions[path])
        else:
            untapped.update(owned.values())
    plan = _with_untapped(shapes, layers, untapped)
    wrong = _disprove(model, output, few, plan)
    if wrong:  # used in a way that a tap cannot see, such as F.linear(x, embedding.weight)
        plan = _with_untapped(shapes, layers, {*plan.untapped, *wrong})
    if plan.untapped:
        plan = replace(plan, looped=_needs_loop(model, output, few, plan))
    gradients = per_example_gradients(model, output, few, plan)
    energies = {  # two digits, so that devices that round differently still agree on the shares
        name: float(f"{gradient.double().square().sum().item() / len(gradient):.1e}")
        for name, gradient in gradients.items()
    }
    return replace(plan, energies=energies)


def check_uncoupled(model: nn.Module) -> None:
    """Raise CheckpointError if a layer mixes the examples of a batch or is random."""
    for path, module in model.named_modules():
        if isinstance(module, _COUPLING) and (module.training or module.running_mean is None):
            why = "is in train mode" if module.training else "keeps no running statistics"
            raise CheckpointError(
                f"BatchNorm layer {path!r} {why}: each example's gradient would depend on the rest "
                "of its batch. Put the model in eval mode and use track_running_stats=True."
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise CheckpointError(
                f"Dropout layer {path!r} is in train mode: outputs would be random. "
                "Put the model in eval mode."
            )


def head(batch: Batch, size: int) -> Batch:
    """The first `size` examples of a batch."""
    return {name: tensor[:size] for name, tensor in batch.items()}


def _check_outputs(model: nn.Module, output: Output, batch: Batch) -> None:
    """Outputs are `[batch]`, finite, and the same whoever else is in the batch."""
    size = len(next(iter(batch.values())))
    with torch.no_grad():
        together = output(model, batch)
        alone = output(model, head(batch, 1))
    if together.shape != (size,):
        raise CheckpointError(
            f"The model output has shape {tuple(together.shape)} for a batch of {size}; "
            f"it must be one number an example, ({size},)."
        )
    if not (together.isfinite().all() and alone.isfinite().all()):
        raise CheckpointError(
            "The model output is not finite on the first examples: the weights or the data hold "
            "NaN or infinite values."
        )
    scale = 1 + together.abs().max().item()
    if (together[0] - alone[0]).abs().item() > 1e-3 * scale:
        raise CheckpointError(
            f"The first example's model output is {alone[0].item():.6g} alone and "
            f"{together[0].item():.6g} in a batch of {size}: examples of a batch influence each "
            "other, so their gradients cannot be told apart."
        )


def _observe(
    model: nn.Module, output: Output, batch: Batch, holders: Mapping[str, nn.Module]
) -> tuple[dict[str, int], set[str]]:
    """Run once: (positions an example of each layer that a tap can serve, layers that misfit)."""
    size = len(next(iter(batch.values())))
    positions: dict[str, int] = {}
    misfits: set[str] = set()
    handles = []

    def look(path: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            a = _input_of(args, kwargs)
            if not isinstance(result, Tensor) or len(a) != size or len(result) != size:
                misfits.add(path)
            elif isinstance(module, (nn.Embedding, nn.Linear)):
                features = 1 if isinstance(module, nn.Embedding) else a.shape[-1]
                positions[path] = positions.get(path, 0) + a[0].numel() // features
            elif isinstance(module, CONVOLUTIONS):
                positions[path] = positions.get(path, 0) + result[0, 0].numel()
            else:
                positions[path] = 1

        return hook

    for path, module in holders.items():
        if _has_rule(module):
            handles.append(module.register_forward_hook(look(path, module), with_kwargs=True))
    try:
        with torch.no_grad():
            output(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return positions, misfits


def _has_rule(module: nn.Module) -> bool:
    if type(module) not in _TAPPED:  # a subclass may compute something else
        return False
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return True


def _with_untapped(
    shapes: dict[str, torch.Size], layers: dict[str, Layer], untapped: set[str]
) -> Plan:
    """A parameter is tapped everywhere it is used or nowhere."""
    kept = {
        path: Layer(
            None if layer.weight in untapped else layer.weight,
            None if layer.bias in untapped else layer.bias,
            layer.positions,
        )
        for path, layer in layers.items()
    }
    kept = {path: layer for path, layer in kept.items() if layer.weight or layer.bias}
    names = tuple(name for name in shapes if name in untapped)
    return Plan(shapes, {}, kept, names, looped=False)


def _disprove(model: nn.Module, output: Output, batch: Batch, plan: Plan) -> set[str]:
    """Tapped parameters whose per-example gradients do not sum to what autograd says.

    Each example gets a weight of its own, so that a gradient given to the wrong example shows.
    """
    tapped = [name for name in plan.shapes if name not in plan.untapped]
    if not tapped:
        return set()
    parameters = dict(model.named_parameters())
    with torch.enable_grad():
        values = output(model, batch)
        weights = torch.linspace(0.5, 2.0, len(values), device=values.device)
        total = (weights * values).sum()
        wanted = torch.autograd.grad(total, [parameters[n] for n in tapped], allow_unused=True)
    found = tapped_gradients(model, output, batch, plan)
    norms = [0.0 if w is None else w.norm().item() for w in wanted]
    floor = 1e-5 * max(norms)
    wrong = set()
    for name, reference, norm in zip(tapped, wanted, norms, strict=True):
        got = torch.einsum("b,b...->...", weights, found[name])
        error = (got if reference is None else got - reference).norm().item()
        if not error <= 1e-3 * norm + floor:
            wrong.add(name)
    return wrong


def _needs_loop(model: nn.Module, output: Output, batch: Batch, plan: Plan) -> bool:
    looped = untapped_gradients(model, output, batch, plan.untapped, looped=True)
    try:
        mapped = untapped_gradients(model, output, batch, plan.untapped, looped=False)
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        return True  # vmap has no rule for some operation of this model
    return not torch.allclose(mapped, looped, rtol=1e-3, atol=1e-3 * looped.abs().max().item())


# --- running -----------------------------------------------------------------------------------


class _Start(torch.autograd.Function):
    """Makes a layer's output the start of the graph, without a copy and without a leaf.

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
) -> Tensor:
    """Run one forward and one activation-only backward; hand (a, g) of each layer to `consume`.

    `consume` is called once for every use of a layer, last layer first, while the gradient is
    still in the cache. It must not keep or change the tensors it is given.

    Returns:
        Model outputs `[batch]`, detached.
    """
    anchor = torch.zeros((), requires_grad=True)
    handles = []

    def tap(path: str) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, args: Any, kwargs: Any, result: Tensor) -> Tensor:
            a = _input_of(args, kwargs).detach()
            if not result.requires_grad:
                result = _Start.apply(result, anchor)  # type: ignore[no-untyped-call]
            # A hook of the tensor, not of its name: an in-place activation afterwards is safe.
            result.register_hook(lambda g: consume(path, layer, a, g))
            return result

        return hook

    with _frozen(model), torch.enable_grad():
        for path, layer in layers.items():
            handles.append(layer.register_forward_hook(tap(path), with_kwargs=True))
        try:
            values = output(model, _channels_last(batch))
        finally:
            for handle in handles:
                handle.remove()
        if values.requires_grad:
            values.sum().backward()
    return values.detach()


def layers_of(model: nn.Module, plan: Plan) -> dict[str, nn.Module]:
    """The tapped layers of this model by name."""
    return {path: model.get_submodule(path) for path in plan.layers}


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
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


def _input_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    value = args[0] if args else kwargs["input"]
    assert isinstance(value, Tensor)
    return value


# --- the gradient of each kind of layer ----------------------------------------------------------


def weight_gradient(layer: nn.Module, a: Tensor, g: Tensor, bias: Tensor | None = None) -> Tensor:
    """Per-example gradient `[batch, *weight.shape]` from one use of a layer.

    Args:
        layer: A layer that `plan_gradients` taps.
        a: Its input.
        g: Gradient of the model outputs with respect to its output.
        bias: `bias_gradient` of this use, if at hand.
    """
    b = len(g)
    if isinstance(layer, nn.Linear):
        return positions_of(g).transpose(1, 2) @ positions_of(a)
    if isinstance(layer, CONVOLUTIONS):
        groups = layer.groups
        cut = patches(layer, a)  # [b, positions, kernel, in]
        cut = cut.unflatten(-1, (groups, -1)).permute(0, 3, 1, 4, 2)  # [b, group, t, in, kernel]
        out = positions_of(g, channels=1).unflatten(-1, (groups, -1)).permute(0, 2, 3, 1)
        gradient: Tensor = out @ cut.flatten(3)
        return gradient.reshape(b, *layer.weight.shape)
    if isinstance(layer, nn.Embedding):
        return scatter_rows(embedding_rows(layer, a, g), a, layer.num_embeddings)
    if isinstance(layer, _BATCH_NORMS):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        bias = _over_positions(g) if bias is None else bias
        centred = torch.addcmul(_over_positions(g * a), bias, layer.running_mean, value=-1)
        return centred * (layer.running_var + layer.eps).rsqrt()
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
    if isinstance(layer, nn.Linear):
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
    """What a convolution sees: `[batch, positions, kernel, in]` (unfold, for any dimensions)."""
    assert isinstance(layer, CONVOLUTIONS)
    spatial = len(layer.kernel_size)
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
    view = a.as_strided(
        (len(a), *counts, *layer.kernel_size, a.shape[-1]),
        (
            a.stride(0),
            *(stride * step for stride, step in zip(strides, layer.stride, strict=True)),
            *(stride * step for stride, step in zip(strides, layer.dilation, strict=True)),
            1,
        ),
    )
    return view.reshape(len(a), -1, torch.Size(layer.kernel_size).numel(), a.shape[1 + spatial])


def convolve(layer: nn.Module, a: Tensor, kernels: Tensor) -> Tensor:
    """The convolution of a layer with other kernels, `[new, in, *kernel]`, and without bias."""
    assert isinstance(layer, CONVOLUTIONS)
    a, padding = _padded(layer, a)
    function = (F.conv1d, F.conv2d, F.conv3d)[len(layer.kernel_size) - 1]
    result: Tensor = function(
        a, kernels, stride=layer.stride, padding=padding, dilation=layer.dilation
    )
    return result


def _padded(layer: nn.Module, a: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """(input, zero padding still to do): uneven and non-zero paddings are done here."""
    assert isinstance(layer, CONVOLUTIONS)
    if isinstance(layer.padding, tuple) and layer.padding_mode == "zeros":
        return a, layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(a, layer._reversed_padding_repeated_twice, mode), (0,) * len(layer.kernel_size)


def embedding_rows(layer: nn.Embedding, ids: Tensor, g: Tensor) -> Tensor:
    """Gradient `[batch, positions, features]` that each looked-up row receives; 0 for padding."""
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


# --- whole gradients -----------------------------------------------------------------------------


def tapped_gradients(
    model: nn.Module, output: Output, batch: Batch, plan: Plan
) -> dict[str, Tensor]:
    """Exact gradients `[batch, *shape]` of every tapped parameter by name."""
    found: dict[str, Tensor] = {}

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        names = plan.layers[path]
        if names.weight:
            add_gradient(found, names.weight, weight_gradient(layer, a, g))
        if names.bias:
            add_gradient(found, names.bias, bias_gradient(layer, g))

    values = backward(model, output, batch, layers_of(model, plan), consume)
    for name, shape in plan.shapes.items():
        if name not in plan.untapped and name not in found:  # the output does not depend on it
            found[name] = values.new_zeros(len(values), *shape)
    return found


def add_gradient(found: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    """Add the gradient from one use of a parameter to those from its other uses."""
    found[name] = found[name] + gradient if name in found else gradient


class OutputModule(nn.Module):
    """`output(model, batch)` as a module, so that `functional_call` can swap its parameters."""

    def __init__(self, model: nn.Module, output: Output) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, batch: Batch) -> Tensor:
        return self.output(self.model, batch)


def untapped_gradients(
    model: nn.Module, output: Output, batch: Batch, names: Sequence[str], looped: bool
) -> Tensor:
    """Gradients of the named parameters, flattened and joined: `[batch, sum of sizes]`."""
    parameters = dict(model.named_parameters())
    chosen = {f"model.{name}": parameters[name].detach() for name in names}
    outputs = OutputModule(model, output)

    def one(swapped: dict[str, Tensor], example: Batch) -> Tensor:
        single = {name: tensor.unsqueeze(0) for name, tensor in example.items()}
        value: Tensor = torch.func.functional_call(outputs, swapped, (single,))[0]
        return value

    with _frozen(model):
        if not looped:
            mapped = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(chosen, batch)
            return torch.cat([mapped[name].reshape(len(mapped[name]), -1) for name in chosen], 1)
        rows = []
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in chosen.items()}
        for i in range(len(next(iter(batch.values())))):
            with torch.enable_grad():
                value = one(leaves, {name: tensor[i] for name, tensor in batch.items()})
            if not value.requires_grad:
                rows.append(value.new_zeros(sum(leaf.numel() for leaf in leaves.values())))
                continue
            parts = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
        return torch.stack(rows)


def per_example_gradients(
    model: nn.Module, output: Output, batch: Batch, plan: Plan
) -> dict[str, Tensor]:
    """Exact gradients `[batch, *shape]` of every attributed parameter by name."""
    found = tapped_gradients(model, output, batch, plan)
    if plan.untapped:
        joined = untapped_gradients(model, output, batch, plan.untapped, plan.looped)
        sizes = [plan.shapes[name].numel() for name in plan.untapped]
        for name, part in zip(plan.untapped, joined.split(sizes, 1), strict=True):
            found[name] = part.unflatten(1, plan.shapes[name]) if plan.shapes[name] else part[:, 0]
    return {name: found[name] for name in plan.shapes}
