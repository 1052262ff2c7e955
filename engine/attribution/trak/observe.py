"""Look at forward passes: which layers a gradient rule fits, and how own parameters are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.attribution.trak.backward import backward, input_of
from engine.attribution.trak.functional import Functions
from engine.attribution.trak.layer_gradients import BATCH_NORMS, CONVOLUTIONS, is_conv1d
from engine.attribution.trak.own_parameters import LEADS, REPLACED, own_parameters
from engine.attribution.trak.plan import Batch, Examples, Layer, Output, size_of

_TAPPED = (
    nn.Linear,
    *CONVOLUTIONS,
    nn.Embedding,
    *BATCH_NORMS,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_FOLDABLE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)
"""Layers whose features come last, so that any dimensions may stand before them."""


@dataclass(frozen=True)
class _Use:
    """One call of a layer: shapes of its input and of its result, and how often its weight is
    applied, in all."""

    inputs: tuple[int, ...]
    results: tuple[int, ...]
    applied: int

    def has(self, size: int, dimension: int) -> bool:
        """Whether input and result have that many rows in a dimension."""
        sides = self.inputs[dimension : dimension + 1], self.results[dimension : dimension + 1]
        return sides == ((size,), (size,))


@dataclass(frozen=True)
class Seen:
    """A layer that a rule fits.

    Attributes:
        positions: How often its weight is applied to one example.
        examples: Where its input has the examples.
    """

    positions: int
    examples: Examples


def observe_layers(
    model: nn.Module, output: Output, batch: Batch, holders: Mapping[str, nn.Module]
) -> dict[str, Seen]:
    """The layers among `holders` that a rule fits, by name; unused ones are left out.

    Two passes over batches of different sizes tell rows that are examples from rows that only look
    like them: their number follows the batch.
    """
    larger = one_more(batch)
    once, again = (_uses(model, output, sized, holders) for sized in (batch, larger))
    return _seen(once, again, holders, size_of(batch))


def _seen(
    once: Mapping[str, list[_Use]],
    again: Mapping[str, list[_Use]],
    layers: Mapping[str, nn.Module],
    size: int,
) -> dict[str, Seen]:
    seen = {}
    for path, uses in once.items():
        foldable = isinstance(layers[path], _FOLDABLE) or is_conv1d(layers[path])
        examples = _where(uses, again.get(path, []), size, size + 1, foldable)
        if examples is not None:
            applied = sum(use.applied for use in uses)
            seen[path] = Seen(applied if examples == "shared" else applied // size, examples)
    return seen


def observe_functions(
    model: nn.Module, output: Output, batch: Batch, names: Sequence[str]
) -> dict[str, Layer]:
    """The uses of the named parameters by functions that a rule fits, as layers by name.

    A parameter is left out where one of its uses fits no rule.
    """
    weights = {id(model.get_parameter(name)): name for name in names}
    layers: dict[str, nn.Module] = {}
    biases: dict[str, str | None] = {}
    runs: list[dict[str, list[_Use]]] = []

    def called(
        path: str, layer: nn.Module, a: Tensor, result: Tensor, bias: Tensor | None
    ) -> Tensor:
        use = _Use(tuple(a.shape), tuple(result.shape), _applied(layer, a, result))
        runs[-1].setdefault(path, []).append(use)
        layers[path], biases[path] = layer, weights.get(id(bias))
        return result

    for sized in (batch, one_more(batch)):
        runs.append({})
        try:
            with torch.no_grad(), Functions(weights, called):
                output(model, sized)
        except Exception:
            return {}  # this model does not run while its functions are watched
    once, again = runs
    seen = _seen(once, again, layers, size_of(batch))
    unfit = {path.rpartition("@")[0] for path in layers if path not in seen}
    return {
        path: Layer(path.rpartition("@")[0], biases[path], found.positions, found.examples)
        for path, found in seen.items()
        if path.rpartition("@")[0] not in unfit
    }


def _where(
    uses: Sequence[_Use], others: Sequence[_Use], size: int, larger: int, foldable: bool
) -> Examples | None:
    """Where all uses of a layer have the examples; None where a rule would be wrong."""
    if len(uses) != len(others) or not all(use.inputs for use in (*uses, *others)):
        return None
    if uses == others:
        return "shared"
    pairs = list(zip(uses, others, strict=True))
    if all(use.has(size, 0) and other.has(larger, 0) for use, other in pairs):
        return "first"
    if all(use.has(size, 1) and other.has(larger, 1) for use, other in pairs):
        return "second"
    counts = [(use.inputs[0] // size, use.results[0] // size) for use in uses]
    if foldable and all(
        one == two and use.has(size * one, 0) and other.has(larger * one, 0)
        for (one, two), (use, other) in zip(counts, pairs, strict=True)
    ):
        return "folded"
    return None


def one_more(batch: Batch) -> Batch:
    """The batch and its first example once more."""
    return {name: torch.cat([tensor, tensor[:1]]) for name, tensor in batch.items()}


def _uses(
    model: nn.Module, output: Output, batch: Batch, holders: Mapping[str, nn.Module]
) -> dict[str, list[_Use]]:
    found: dict[str, list[_Use]] = {}
    handles = []

    def look(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            a = input_of(args, kwargs)
            if isinstance(result, Tensor) and a.ndim and result.ndim:
                use = _Use(tuple(a.shape), tuple(result.shape), _applied(module, a, result))
            else:
                use = _Use((), (), 0)
            found.setdefault(path, []).append(use)

        return hook

    for path, module in holders.items():
        if has_rule(module):
            handles.append(module.register_forward_hook(look(path), with_kwargs=True))
    try:
        with torch.no_grad():
            output(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _applied(module: nn.Module, a: Tensor, result: Tensor) -> int:
    if isinstance(module, CONVOLUTIONS):
        return result.numel() // max(1, module.out_channels)
    if isinstance(module, nn.Embedding):
        return a.numel()
    if isinstance(module, nn.Linear) or is_conv1d(module):
        return a.numel() // a.shape[-1]
    return len(a)  # the weights of norms count once


def has_rule(module: nn.Module) -> bool:
    """Whether `layer_gradients` knows the gradient of this layer."""
    if is_conv1d(module):
        return True
    if type(module) not in _TAPPED:  # a subclass may compute something else
        return False
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return True


def shared_layers(
    model: nn.Module,
    output: Output,
    batch: Batch,
    layers: Mapping[str, nn.Module],
    tolerance: float,
) -> set[str]:
    """Those of the layers whose result, repeated for each example, changes no output."""
    return {
        path
        for path, layer in layers.items()
        if _unchanged(model, output, batch, {path: layer}, {path: "shared"}, tolerance)
    }


def own_leads(
    model: nn.Module, output: Output, batch: Batch, names: Sequence[str], tolerance: float
) -> dict[str, int]:
    """How the named parameters can be laid out for each example; those that cannot are left out.

    Parameters of the same name in modules of the same class are used alike, so they are tried
    together.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name in names:
        holder, _, key = name.rpartition(".")
        shape = model.get_parameter(name).shape
        kind = type(model.get_submodule(holder)), key, len(shape), shape[:1] == (1,)
        groups.setdefault(kind, []).append(name)
    leads: dict[str, int] = {}
    for (_, _, ndim, single), members in groups.items():
        for lead in LEADS:
            if lead == REPLACED and (ndim < 2 or not single):
                continue
            tried = leads | dict.fromkeys(members, lead)
            layers = own_parameters(model, tried)
            if _unchanged(model, output, batch, layers, {}, tolerance):
                leads = tried
                break
    return leads


def _unchanged(
    model: nn.Module,
    output: Output,
    batch: Batch,
    layers: Mapping[str, nn.Module],
    examples: Mapping[str, Examples],
    tolerance: float,
) -> bool:
    """Whether outputs stay the same, at two batch sizes, while these layers are observed."""
    for sized in (batch, one_more(batch)):
        with torch.no_grad():
            wanted = output(model, sized)
        try:
            found = backward(model, output, sized, layers, lambda *_: None, examples)
        except Exception:
            return False  # this model cannot take the parameter or result in another shape
        if found.shape != wanted.shape:
            return False
        error = (found - wanted).abs().max().item()
        if not error <= tolerance * (1 + wanted.abs().max().item()):
            return False
    return True
