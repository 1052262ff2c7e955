"""Weights of models in safetensors files: written to the store, read from anywhere.

Files of weights are not trusted: everything in the header is checked against the architecture
before any tensor is read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from engine import store
from engine.store.errors import CheckpointError

_MAX_HEADER = 16 * 2**20
_FLOATS = ("F64", "F32", "F16", "BF16")
_INTEGERS = ("I64", "I32", "I16", "I8", "U8", "BOOL")
_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that `DataParallel` and `torch.compile` add to every name."""


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


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill `model` with the weights of a safetensors file, whoever wrote it.

    Names and shapes must be exactly those of the model; float16, bfloat16 and float64 are converted
    to the model's dtype. If anything is wrong, the model does not change.

    Raises:
        CheckpointError: The file is not a safetensors file, is truncated or belongs to another
            architecture, or a weight is not finite.
    """
    wanted = model.state_dict()
    _check_prefix(path)
    try:
        with safe_open(path, framework="pt") as file:
            _check_entries(path, file, wanted)
            state = {name: file.get_tensor(name).to(wanted[name].dtype) for name in wanted}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}). Copy it again, or convert the "
            "original with `dataloupe convert`."
        ) from error
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: tensor {name!r} holds NaN or infinite values in {tensor.dtype}; the "
                "training that made it has diverged or its values overflow."
            )
    model.load_state_dict(state, strict=True)


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
            f"{path} is a pickle (a .pt file) under another name. "
            "`dataloupe convert FILE` makes safetensors of it."
        )
    if len(start) < 9 or start[8:9] != b"{":
        raise CheckpointError(f"{path} is not a safetensors file.")
    (length,) = struct.unpack("<Q", start[:8])
    if length > min(size - 8, _MAX_HEADER):
        raise CheckpointError(
            f"{path} is cut short or damaged: it has {size} bytes and a header of {length}."
        )


def _check_entries(path: Path, file: Any, wanted: Mapping[str, torch.Tensor]) -> None:
    found = set(file.keys())
    missing = [name for name in wanted if name not in found]
    unexpected = sorted(found - wanted.keys())
    if missing or unexpected:
        raise CheckpointError(f"{path} does not fit: {_misfit(missing, unexpected)}")
    wrong = []
    for name, tensor in wanted.items():
        entry = file.get_slice(name)
        shape, dtype = list(entry.get_shape()), str(entry.get_dtype())
        if shape != list(tensor.shape):
            wrong.append(f"{name!r} is {shape}, the architecture has {list(tensor.shape)}")
        elif dtype not in (_FLOATS if tensor.is_floating_point() else _INTEGERS):
            wrong.append(f"{name!r} is {dtype}, the architecture has {tensor.dtype}")
    if wrong:
        raise CheckpointError(
            f"{path} does not fit: {_first(wrong)}. Do architecture_options, the number of "
            "classes and the channels of the pictures match the training?"
        )


def _misfit(missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"the architecture's {_first([repr(name) for name in missing])} missing")
    if unexpected:
        parts.append(f"{_first([repr(name) for name in unexpected])} unexpected")
    advice = "Check architecture and architecture_options."
    if unexpected and {bare_name(name) for name in unexpected} == set(missing):
        advice = "The names only have a wrapper's prefix: `dataloupe convert FILE` removes it."
    return f"{'; '.join(parts)}. {advice}"


def bare_name(name: str) -> str:
    """A tensor's name without the prefixes that wrappers add."""
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def _first(items: list[str], count: int = 3) -> str:
    rest = len(items) - count
    return ", ".join(items[:count]) + (f" and {rest} more" if rest > 0 else "")
