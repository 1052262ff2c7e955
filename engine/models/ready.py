"""Make a model that somebody wrote ready for use, and try it on two empty inputs.

The rest of Dataloupe computes in float32, in eval mode and, on CPUs, with pictures channels-last in
memory. Models that were not written for that are adapted here where their results stay the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.models.answers import described, logits_of
from engine.models.calling import call
from engine.models.denoising import DENOISER, check_denoiser
from engine.models.pairs import ANSWER, PAIRS, check_pairs
from engine.models.sequences import SEQUENCES, check_sequences
from engine.store.errors import SpecError

_CONTIGUOUS = "keeps_layout"
_NOTES = "_dataloupe_notes"


class Scripted(nn.Module):
    """A TorchScript model inside a plain module, which can have hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Any:
        return self.module(inputs)


def make_ready(
    architecture: str, model: nn.Module, encoding: dict[str, Any], n_classes: int
) -> nn.Module:
    """Return the model in eval mode, known to take this encoding and to give `n_classes` logits.

    Wrappers of `torch.compile` are removed; layers in other precisions are computed in float32
    unless the model's own code forbids it; lazy layers get their shapes.

    Raises:
        SpecError: The model cannot take these inputs, or gives something else.
    """
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        model = Scripted(model)
    model.eval()
    inputs, what = probe(encoding)
    notes = []
    with torch.no_grad():
        precisions = _other_precisions(model)
        if precisions and (kept := _in_float32(model, inputs)) is not None:
            answer = kept
            notes.append(f"Its {precisions} layers are computed in float32.")
        else:
            try:
                answer = call(model, inputs)
            except Exception as error:
                alone = list(inputs) == ["input"]
                refusal = _refusal(architecture, what, "shape" in encoding, alone, error)
                raise SpecError(refusal) from error
            if precisions:
                notes.append(
                    f"Its {precisions} layers are computed in that precision, because its code "
                    "converts their inputs; gradients are as coarse."
                )
        model.eval()  # for layers that were created during the first pass
        if encoding.get(ANSWER) == PAIRS:
            check_pairs(architecture, answer)
        elif encoding.get(ANSWER) == SEQUENCES:
            check_sequences(architecture, answer, inputs)
        elif encoding.get(ANSWER) == DENOISER:
            check_denoiser(architecture, answer, inputs)
        else:
            _check_answer(architecture, answer, n_classes)
        pictures = any(tensor.ndim == 4 for tensor in inputs.values())
        if pictures and not _runs_channels_last(model, inputs):
            model.register_forward_pre_hook(_make_contiguous, with_kwargs=True)
            object.__setattr__(model, _CONTIGUOUS, True)
    object.__setattr__(model, _NOTES, notes)
    return model


def probe(encoding: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    """A prepared batch of two empty inputs, and what they are, in words.

    An encoding describes inputs other than pictures and token ids in `inputs`: name → the `shape`
    and `dtype` of one input, the numbers that it begins with, and the number in the `rest` of it.
    """
    if "inputs" in encoding:
        given = encoding["inputs"]
        return {name: _two_inputs(about) for name, about in given.items()}, " and ".join(
            f"{name} of shape {about['shape']}" for name, about in given.items()
        )
    if "shape" in encoding:
        return {"input": torch.zeros(2, *encoding["shape"])}, f"pictures of {encoding['shape']}"
    tokens = encoding.get("max_tokens", 1)
    inputs = {"input": torch.zeros(2, tokens, dtype=torch.int64)}
    return inputs, f"sequences of {tokens} token ids"


def _two_inputs(about: dict[str, Any]) -> Tensor:
    one = torch.full(about["shape"], about["rest"], dtype=getattr(torch, about["dtype"]))
    start = torch.tensor(about["start"], dtype=one.dtype)
    one.view(-1)[: len(start)] = start
    return torch.stack([one, one])


def notes_of(model: nn.Module) -> list[str]:
    """What `make_ready` changed, one sentence each."""
    return list(getattr(model, _NOTES, []))


def in_fast_layout(tensor: Tensor) -> Tensor:
    """Pictures `[b, c, h, w]` on a CPU in channels_last memory; any other tensor as it is."""
    if tensor.ndim == 4 and tensor.device.type == "cpu":
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def use_fast_layout(model: nn.Module) -> None:
    """Keep a model's weights channels_last in memory where it is on a CPU and can run so."""
    if keeps_layout(model):
        return
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.device.type == "cpu":
            # `contiguous` would leave the strides of weights with one channel as they are.
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


def keeps_layout(model: nn.Module) -> bool:
    """Whether the model needs inputs and weights that are contiguous in memory."""
    return bool(getattr(model, _CONTIGUOUS, False))


def _make_contiguous(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_contiguous, args)), {name: _contiguous(p) for name, p in kwargs.items()}


def _contiguous(part: Any) -> Any:
    return part.contiguous() if isinstance(part, Tensor) else part


def _runs_channels_last(model: nn.Module, inputs: dict[str, Tensor]) -> bool:
    """Whether the model runs channels_last. `x.view(len(x), -1)` after a convolution forbids it."""
    contiguous = [(parameter, parameter.data) for parameter in model.parameters()]
    use_fast_layout(model)
    try:
        call(model, {name: in_fast_layout(tensor) for name, tensor in inputs.items()})
    except Exception:  # it has just run on the same contiguous numbers
        return False
    finally:
        for parameter, data in contiguous:
            parameter.data = data
    return True


def _other_precisions(model: nn.Module) -> str:
    """Floating-point types of parameters and buffers other than float32, as words."""
    dtypes = {
        str(tensor.dtype).removeprefix("torch.")
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    return " and ".join(sorted(dtypes))


def _in_float32(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """Convert the model to float32; its answer, or None and no change if it cannot run so."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    for parameter, data in parameters:
        if data.is_floating_point():
            parameter.data = data.float()
    for module, name, buffer in buffers:
        if buffer.is_floating_point():
            module._buffers[name] = buffer.float()
    try:
        return call(model, inputs)
    except Exception:  # its code converts inputs to the original precision
        for parameter, data in parameters:
            parameter.data = data
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
    return None


def _refusal(architecture: str, what: str, pictures: bool, alone: bool, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, TypeError):
        reason += f" (the model must take {'one tensor' if alone else 'them by these names'})"
    if not pictures:
        return f"architecture {architecture!r} cannot take {what}: {reason}"
    return (
        f"architecture {architecture!r} cannot take {what} (channels, height, width), "
        "which may be too small for it or have other channels than it expects (`image_size` and "
        f"`color` under [task] change them): {reason}"
    )


def _check_answer(architecture: str, answer: Any, n_classes: int) -> None:
    try:
        logits = logits_of(answer)
    except SpecError as error:
        raise SpecError(f"architecture {architecture!r}: {error}") from error
    fits = logits.shape == (2, n_classes) or (n_classes == 1 and logits.shape == (2,))
    if fits and logits.is_floating_point():
        return
    advice = ""
    if not logits.ndim:
        advice = " It seems to return a loss; return the logits instead."
    elif n_classes == 2 and logits.shape in ((2,), (2, 1)):
        advice = " Where z is its one output, return the two logits 0 and z."
    elif isinstance(answer, (tuple, list)):
        advice = " The first element of a tuple must be the logits."
    found = described(answer) if logits.is_floating_point() else f"numbers of type {logits.dtype}"
    of_classes = f" of {n_classes} classes" if n_classes > 1 else ""
    what = "logits" if n_classes > 1 else "one number each, in an array"
    raise SpecError(
        f"architecture {architecture!r} gives {found.removeprefix('shape ')} for two examples"
        f"{of_classes}; it must give {what} of shape [2, {n_classes}].{advice}"
    )
