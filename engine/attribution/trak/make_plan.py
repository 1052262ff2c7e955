"""Decide how each parameter's gradient is computed, and check it against autograd.

A gradient is computed from its layer's input and output gradient where `layer_gradients` has a
rule for the layer and the result agrees with autograd on a few examples. All others come from
`torch.func`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.attribution.trak.functional import layer_of_use
from engine.attribution.trak.gradients import untapped_gradients
from engine.attribution.trak.layer_gradients import BATCH_NORMS
from engine.attribution.trak.observe import (
    observe_functions,
    observe_layers,
    own_leads,
    shared_layers,
)
from engine.attribution.trak.plan import Batch, Layer, Output, Plan, head, size_of
from engine.attribution.trak.summaries import squared_norms, weighted_sums
from engine.store.errors import CheckpointError

_COUPLING = (*BATCH_NORMS, nn.SyncBatchNorm)
_HALVES = (torch.float16, torch.bfloat16)
FINE, COARSE = 1e-3, 3e-2
"""Relative differences of outputs and gradients that rounding explains, in float32 and in half
precision; a wrong rule differs by more."""
PROOF_EXAMPLES = 16
_PROOF_NUMBERS = 32_000_000
"""The check against autograd holds whole gradients, but none of tables of embeddings. It uses as
many examples as fit into this many numbers, but at least two."""


def plan_gradients(model: nn.Module, output: Output, batch: Batch) -> Plan:
    """Decide how each parameter's gradient is computed and check it on a few examples.

    Only parameters that require gradients are attributed. Convolution weights are stored
    channels-last in memory, the fastest layout on CPUs; their values do not change. A model with
    the attribute `keeps_layout` (see `engine.models.ready`) is left as it is.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples; the first `PROOF_EXAMPLES` are used.

    Raises:
        CheckpointError: Examples of a batch influence each other, no parameter can be attributed,
            or outputs or gradients are not finite.
    """
    check_uncoupled(model)
    _check_real(model)
    if not getattr(model, "keeps_layout", False):
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    size = sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in tables)
    few = head(batch, max(2, min(PROOF_EXAMPLES, _PROOF_NUMBERS // max(1, size))))
    tolerance = COARSE if is_coarse(model, output, few) else FINE
    _check_outputs(model, output, few, tolerance)
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
    modules = dict(holders)
    seen = observe_layers(model, output, few, modules)
    asked = {path: modules[path] for path, found in seen.items() if found.examples == "shared"}
    shared = shared_layers(model, output, few, asked, tolerance)
    seen = {path: found for path, found in seen.items() if path in shared or path not in asked}
    layers: dict[str, Layer] = {}
    untapped: set[str] = set()
    for path, module in holders:
        owned = {
            key: canonical[id(p)]
            for key, p in module._parameters.items()
            if p is not None and id(p) in canonical
        }
        if path in seen:
            positions, examples = seen[path].positions, seen[path].examples
            layers[path] = Layer(owned.get("weight"), owned.get("bias"), positions, examples)
            # Other parameters of a layer, such as the g and v of weight normalization.
            untapped.update(name for key, name in owned.items() if key not in ("weight", "bias"))
        else:
            untapped.update(owned.values())
    # A tied weight may be held by a module that is never called; the check below finds other uses.
    bare = [name for name in shapes if name in untapped - _covered(layers)]
    layers |= _by_functions(model, output, few, bare, tolerance)
    bare = [name for name in bare if name not in _covered(layers)]
    leads = own_leads(model, output, few, bare, tolerance)
    layers |= {name: Layer(name, None, 1, lead=lead) for name, lead in leads.items()}
    plan = _plan(shapes, layers)
    wrong = _disagreeing(model, output, few, plan, tolerance)
    if wrong:  # used outside its layer's forward, such as F.linear(x, embedding.weight)
        layers = _without(plan.layers, wrong)
        layers |= _by_functions(model, output, few, sorted(wrong), tolerance)
        plan = _plan(shapes, layers)
        wrong = _disagreeing(model, output, few, plan, tolerance)
        plan = _plan(shapes, _without(plan.layers, wrong))
    if plan.untapped:
        plan = replace(plan, looped=_needs_loop(model, output, few, plan, tolerance))
    return replace(plan, energies=_energies(model, output, batch, plan, size_of(few)))


def _energies(
    model: nn.Module, output: Output, batch: Batch, plan: Plan, at_once: int
) -> dict[str, float]:
    """Mean squared gradient norms over the first `PROOF_EXAMPLES`, `at_once` at a time.

    They have two digits, so that devices that round differently agree on the shares.
    """
    first = head(batch, PROOF_EXAMPLES)
    n = size_of(first)
    totals = dict.fromkeys(plan.shapes, 0.0)
    for start in range(0, n, at_once):
        part = {name: tensor[start : start + at_once] for name, tensor in first.items()}
        for name, norms in squared_norms(model, output, part, plan).items():
            totals[name] += norms.sum().item()
    return {name: float(f"{total / n:.1e}") for name, total in totals.items()}


def _check_real(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_complex():
            raise CheckpointError(
                f"Parameter {name!r} holds complex numbers, to which nothing can be attributed. "
                "Store its real and imaginary parts as real parameters, or freeze it with "
                "requires_grad_(False)."
            )


def is_coarse(model: nn.Module, output: Output, batch: Batch) -> bool:
    """Whether some layer computes in half precision, by itself or under autocast."""
    found = False

    def look(module: nn.Module, args: Any, result: Any) -> None:
        nonlocal found
        found = found or (isinstance(result, Tensor) and result.dtype in _HALVES)

    handle = nn.modules.module.register_module_forward_hook(look)
    try:
        with torch.no_grad():
            output(model, head(batch, 2))
    finally:
        handle.remove()
    return found or any(parameter.dtype in _HALVES for parameter in model.parameters())


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


def _check_outputs(model: nn.Module, output: Output, batch: Batch, tolerance: float) -> None:
    """Outputs are `[batch]`, finite, and do not depend on the rest of the batch."""
    size = size_of(batch)
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
    if (together[0] - alone[0]).abs().item() > tolerance * scale:
        raise CheckpointError(
            f"The first example's model output is {alone[0].item():.6g} alone and "
            f"{together[0].item():.6g} in a batch of {size}: examples of a batch influence each "
            "other, so their gradients cannot be told apart."
        )


def _by_functions(
    model: nn.Module, output: Output, batch: Batch, names: Sequence[str], tolerance: float
) -> dict[str, Layer]:
    """Layers of those of the named parameters that functions use as layers would."""
    if not names:
        return {}
    found = observe_functions(model, output, batch, names)
    asked = {path: layer_of_use(model, path) for path in found if found[path].examples == "shared"}
    shared = shared_layers(model, output, batch, asked, tolerance)
    return {path: layer for path, layer in found.items() if path in shared or path not in asked}


def _covered(layers: Mapping[str, Layer]) -> set[str]:
    return {name for layer in layers.values() for name in (layer.weight, layer.bias) if name}


def _without(layers: Mapping[str, Layer], names: set[str]) -> dict[str, Layer]:
    """The layers without the parameters `names`."""
    kept = {
        path: replace(
            layer,
            weight=None if layer.weight in names else layer.weight,
            bias=None if layer.bias in names else layer.bias,
        )
        for path, layer in layers.items()
    }
    return {path: layer for path, layer in kept.items() if layer.weight or layer.bias}


def _plan(shapes: dict[str, torch.Size], layers: dict[str, Layer]) -> Plan:
    covered = _covered(layers)
    layers = _without(layers, set())
    return Plan(shapes, {}, layers, tuple(n for n in shapes if n not in covered), looped=False)


def _disagreeing(
    model: nn.Module, output: Output, batch: Batch, plan: Plan, tolerance: float
) -> set[str]:
    """Parameters whose per-example gradients by rule do not sum to the gradient by autograd.

    Each example has a different weight in the sum, so that a gradient of the wrong example shows.
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
    found = weighted_sums(model, output, batch, plan, weights)
    norms = [0.0 if w is None else w.float().norm().item() for w in wanted]
    floor = tolerance / 100 * max(norms)
    wrong = set()
    for name, reference, norm in zip(tapped, wanted, norms, strict=True):
        got = found.get(name, torch.zeros(()))
        error = (got if reference is None else got - reference).norm().item()
        if not error <= tolerance * norm + floor:
            wrong.add(name)
    return wrong


def _needs_loop(
    model: nn.Module, output: Output, batch: Batch, plan: Plan, tolerance: float
) -> bool:
    looped = untapped_gradients(model, output, batch, plan.untapped, looped=True)
    try:
        mapped = untapped_gradients(model, output, batch, plan.untapped, looped=False)
    except Exception:
        return True  # vmap has no rule for some operation of this model
    largest = looped.abs().max().item()
    return not torch.allclose(mapped, looped, rtol=tolerance, atol=tolerance * largest)
