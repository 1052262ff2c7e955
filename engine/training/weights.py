"""Weights of models in safetensors files: written to the store, read from anywhere.

Files of weights are not trusted: everything in the header is checked against the architecture
before any tensor is read.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from engine import store
from engine.models.parts import ties_of
from engine.store.errors import CheckpointError
from engine.training.weight_names import Fit, Misfit, is_reset, match_names, with_copies

_MAX_HEADER = 16 * 2**20
_FLOATS = ("F64", "F32", "F16", "BF16")
_INTEGERS = ("I64", "I32", "I16", "I8", "U8", "BOOL")


def save_weights(
    path: Path, model: nn.Module, fingerprint: str, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a model's state dict as a shard."""
    store.write_tensors(path, as_arrays(model), fingerprint, metadata)


def as_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """A model's state dict as arrays. bfloat16, which NumPy lacks, becomes float32."""
    state = model.state_dict()
    return {
        name: (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()
        for name, tensor in state.items()
    }


def load_weights(path: Path, model: nn.Module, reset: Sequence[str] | None = None) -> list[str]:
    """Fill `model` with the weights of a safetensors file, whoever wrote it.

    Names are matched as in `engine.training.weight_names`, and shapes must be exactly those of the
    model; float16, bfloat16 and float64 are converted to the model's dtype. If anything is wrong,
    the model does not change.

    Args:
        path: The file.
        model: The model.
        reset: Parts of the model that keep their own values; None where all must be read.

    Returns:
        What the owner should know, one sentence each.

    Raises:
        CheckpointError: The file is not a safetensors file, is truncated or belongs to another
            architecture, or a weight is not finite.
    """
    wanted, kept = model.state_dict(), kept_parts(model, reset or ())
    with _opened(path) as file:
        fit = _match(path, file, model, reset)
        state = {name: file.get_tensor(source) for name, source in fit.names.items()}
        for group in ties_of(model):
            _check_tied(path, file, fit, group)
    state = {name: tensor.to(wanted[name].dtype) for name, tensor in state.items()}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: tensor {name!r} holds NaN or infinite values in {tensor.dtype}; the "
                "training that made it has diverged or its values overflow."
            )
    model.load_state_dict(state, strict=False)
    notes = []
    if kept:
        notes.append(f"{_first(kept, 8)} start from a fresh initialization, not from {path.name}.")
    own = [name for name in wanted if name not in fit.names and name not in kept]
    if own := [name for name in own if not name.endswith("num_batches_tracked")]:
        notes.append(f"{path.name} lacks {_first(own)}, which stay as the architecture makes them.")
    if fit.ignored:
        notes.append(
            f"{path.name}: {_first([repr(name) for name in fit.ignored])} beside the model "
            f"({fit.prefix}) ignored."
        )
    return notes


def check_weights(path: Path, model: nn.Module) -> None:
    """Raise CheckpointError if the names and shapes of a file do not fit, without reading it."""
    with _opened(path) as file:
        _match(path, file, model, None)


def kept_parts(model: nn.Module, reset: Sequence[str]) -> list[str]:
    """A model's tensors that `reset` names; each of its entries must name some.

    Raises:
        CheckpointError: One names none.
    """
    names = list(model.state_dict())
    for part in reset:
        if not any(is_reset(name, [part]) for name in names):
            parts = sorted({name.rpartition(".")[0] for name in names})
            close = difflib.get_close_matches(part, parts, n=1) or parts[-1:]
            raise CheckpointError(
                f"reset = [{part!r}] names no part of the architecture, whose tensors are "
                f"{_first(names)}. Did you mean {close[0]!r}?"
            )
    return [name for name in names if is_reset(name, reset)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _check_prefix(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}). Copy it again, or convert the "
            "original with `dataloupe convert`."
        ) from error


def _check_prefix(path: Path) -> None:
    """Refuse files that cannot be safetensors, before anything is parsed."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    # The length of the header may start with the first byte of a pickle: check the header too.
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:9] != b"{"):
        raise CheckpointError(
            f"{path} is a pickle (a .pt file), which could run code and is never read. `dataloupe "
            f"convert {path.name}` makes {path.with_suffix('.safetensors').name} of it on your own "
            "machine: name that instead."
        )
    if path.suffix == ".json":
        raise CheckpointError(
            f"{path} lists the parts of a model; `dataloupe convert {path.name}` joins them into "
            "one .safetensors file: name that instead."
        )
    if len(start) < 9 or start[8:9] != b"{":
        raise CheckpointError(f"{path} is not a safetensors file.")
    (length,) = struct.unpack("<Q", start[:8])
    if length > min(size - 8, _MAX_HEADER):
        raise CheckpointError(
            f"{path} is cut short or damaged: it has {size} bytes and a header of {length}."
        )


def _match(path: Path, file: Any, model: nn.Module, reset: Sequence[str] | None) -> Fit:
    wanted = model.state_dict()
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    result = match_names(
        found,
        {name: tuple(tensor.shape) for name, tensor in wanted.items()},
        with_copies(found, file.metadata() or {}),
        ties_of(model),
        [name for name, tensor in model.named_buffers() if _is_integer(tensor)],
        reset or (),
    )
    if isinstance(result, Misfit):
        raise CheckpointError(f"{path} does not fit: {_misfit(path, result, reset)}")
    for name, source in result.names.items():
        dtype = str(file.get_slice(source).get_dtype())
        if dtype not in (_INTEGERS if _is_integer(wanted[name]) else _FLOATS):
            raise CheckpointError(
                f"{path} does not fit: {source!r} is {dtype}, the architecture has "
                f"{wanted[name].dtype}."
            )
    return result


def _is_integer(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _check_tied(path: Path, file: Any, fit: Fit, group: Sequence[str]) -> None:
    """Tensors that are one in the architecture must not differ in the file."""
    sources = sorted({fit.names[name] for name in group if name in fit.names})
    for source in sources[1:]:
        if not torch.equal(file.get_tensor(source), file.get_tensor(sources[0])):
            raise CheckpointError(
                f"{path} does not fit: {sources[0]!r} and {source!r} are one tensor in the "
                "architecture, but differ in the file. Was it trained with untied weights?"
            )


def _misfit(path: Path, misfit: Misfit, reset: Sequence[str] | None) -> str:
    if misfit.choices:
        named = [repr(prefix) if prefix else "no prefix" for prefix in sorted(misfit.choices)]
        key = next(prefix for prefix in misfit.choices if prefix).rstrip(".")
        return (
            f"it holds the model {len(named)} times, under {' and '.join(named)}. Choose one with "
            f"`dataloupe convert {path.name} ONE.safetensors --key {key}`"
            + (", or --key . for the one without a prefix." if "" in misfit.choices else ".")
        )
    if misfit.missing or misfit.unexpected:
        return _names_differ(path, misfit, reset)
    wrong = [
        f"{name!r} is {list(theirs)}, the architecture has {list(ours)}"
        for name, (theirs, ours) in misfit.wrong.items()
    ]
    heads = sorted({name.rpartition(".")[0] for name in misfit.wrong})
    sizes = {(theirs[:1], ours[:1]) for theirs, ours in misfit.wrong.values()}
    same_inputs = all(theirs[1:] == ours[1:] for theirs, ours in misfit.wrong.values())
    if len(heads) == 1 and len(sizes) == 1 and same_inputs and heads[0]:
        ((theirs, ours),) = sizes
        advice = f"It has a head of {theirs[0]} outputs where this study needs {ours[0]}."
        if reset is not None:
            return f'{_first(wrong)}. {advice} To train a fresh one, set reset = ["{heads[0]}"].'
        return f"{_first(wrong)}. {advice}"
    return (
        f"{_first(wrong)}. Do architecture_options, the number of classes and the channels of the "
        "pictures match the training?" + (_RESET if reset is not None else "")
    )


_RESET = " Parts that should start fresh can be named: reset = [...]."


def _names_differ(path: Path, misfit: Misfit, reset: Sequence[str] | None) -> str:
    parts = []
    if misfit.missing:
        missing = _first([repr(name) for name in misfit.missing])
        parts.append(f"the architecture's {missing} missing")
    if misfit.unexpected:
        parts.append(f"{_first([repr(name) for name in misfit.unexpected])} unexpected")
    advice = "Check architecture and architecture_options."
    if re.search(r"-\d+-of-\d+", path.name):
        advice = "It is one part of several: `dataloupe convert` of its .index.json joins them."
    elif reset is not None and misfit.missing:
        heads = list(dict.fromkeys(name.rpartition(".")[0] for name in misfit.missing))
        if len(heads) == 1 and heads[0]:
            advice += f' To start that part fresh, set reset = ["{heads[0]}"].'
    return f"{'; '.join(parts)}. {advice}"


def _first(items: Sequence[str], count: int = 3) -> str:
    rest = len(items) - count
    return ", ".join(items[:count]) + (f" and {rest} more" if rest > 0 else "")
