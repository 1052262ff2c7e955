"""Convert a user's own `.pt` file to safetensors, on the user's own machine.

A worker process with limited memory and time reads the file with torch's restricted unpickler,
which accepts only tensors and plain containers.
"""

from __future__ import annotations

import pickle
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engine import store
from engine.running.processes import run_jobs
from engine.store.errors import CheckpointError
from engine.training.weights import bare_name

SINGLE_TENSOR = "tensor"
"""The name given to a tensor that was saved without a name."""
_NESTING_KEYS = ("state_dict", "model_state_dict", "model", "net")
_EXTRA_BYTES = 2 * 2**30
_SECONDS = 600


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        target: The safetensors file.
        tensors: Number of tensors.
        parameters: Total number of values in the tensors.
        found_in: The keys under which the weights were nested, outermost first; () if they were
            not nested.
    """

    target: Path
    tensors: int
    parameters: int
    found_in: tuple[str, ...]


def convert(source: Path, target: Path) -> Converted:
    """Write the weights in `source` (.pt, .pth, .bin, .safetensors) to `target` as safetensors.

    Weights may be nested under `state_dict`, `model_state_dict`, `model` or `net`. Prefixes added
    by wrappers (`module.`, `_orig_mod.`) are removed. A single tensor, such as scores of dattri, is
    named `tensor`. Dtypes are kept.

    Raises:
        CheckpointError: `source` is missing, cannot be read, or holds anything but tensors.
    """
    if not source.is_file():
        raise CheckpointError(f"{source} does not exist or is not a file.")
    if target.exists() and target.samefile(source):
        raise CheckpointError(f"{target} is the source itself. Give the result a different name.")
    results: list[Converted] = []
    run_jobs(_convert, [(source, target)], 1, lambda _, result: results.append(result))
    return results[0]


def _convert(paths: tuple[Path, Path]) -> Converted:
    source, target = paths
    _limit_this_process(source)
    found_in, weights = _find_weights(source, _read(source))
    try:
        tensors = {
            bare_name(name): tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in weights.items()
        }
    except (RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"{source} holds tensors too large for memory. Save them with `tensor.clone()`."
        ) from error
    if len(tensors) < len(weights):
        raise CheckpointError(
            f"{source} holds the same names both with and without a wrapper's prefix. Save one set "
            "of weights only."
        )
    with store.atomic(target) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Converted(target, len(tensors), parameters, found_in)


def _limit_this_process(source: Path) -> None:
    """Limit memory and CPU time, so that a malicious file can end this worker at most."""
    mapped_pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = mapped_pages * resource.getpagesize() + 4 * source.stat().st_size + _EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def _read(source: Path) -> Any:
    try:
        if source.suffix == ".safetensors":
            return load_file(source)
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+\.\w+)", str(error))
        raise CheckpointError(
            f"{source} holds objects other than tensors{f' ({culprit[1]})' if culprit else ''}, "
            "and reading those could run code. Save only `model.state_dict()` where the model was "
            "trained."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{source} cannot be read as weights: {reason}") from error


def _find_weights(source: Path, content: Any) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        content = {SINGLE_TENSOR: content}
    path: tuple[str, ...] = ()
    while isinstance(content, Mapping):
        key = next((key for key in _NESTING_KEYS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        path, content = (*path, key), content[key]
    where = f"{source}, under {'.'.join(path)}," if path else f"{source}"
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{where} holds {type(content).__name__} and no named weights. Save "
            "`model.state_dict()`."
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{where} holds {name!r} = {type(value).__name__}, which is not a named tensor. "
                "Save `model.state_dict()` only, or under the key 'state_dict'."
            )
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(
                f"{where} holds {name!r}, a sparse, quantized or meta tensor. Save dense tensors."
            )
    return path, dict(content)
