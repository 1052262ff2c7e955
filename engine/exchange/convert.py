"""A user's own `.pt` file into safetensors, on the user's own machine.

The file is read by a worker process with bounds on memory and time, and by torch's restricted
unpickler, which takes tensors and plain containers only.
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

BARE = "tensor"
"""The name of a tensor that was saved alone."""
_NESTS = ("state_dict", "model_state_dict", "model", "net")
_SPARE_BYTES = 2 * 2**30
_SECONDS = 600


@dataclass(frozen=True)
class Converted:
    """What came out of a conversion.

    Attributes:
        target: The safetensors file.
        tensors: Number of tensors.
        parameters: Number of values in them.
        found_in: The keys that led to the weights, outermost first; () where they lay on top.
    """

    target: Path
    tensors: int
    parameters: int
    found_in: tuple[str, ...]


def convert(source: Path, target: Path) -> Converted:
    """Write the weights in `source` (.pt, .pth, .bin, .safetensors) to `target` as safetensors.

    Weights may lie under `state_dict`, `model_state_dict`, `model` or `net`; wrappers' prefixes
    (`module.`, `_orig_mod.`) are taken off. A tensor alone, such as scores of dattri, is called
    `tensor`. Dtypes are kept.

    Raises:
        CheckpointError: `source` is missing or holds other things than tensors.
    """
    if not source.is_file():
        raise CheckpointError(f"{source} is no file.")
    if target.exists() and target.samefile(source):
        raise CheckpointError(f"{target} is the source itself; give the result another name.")
    results: list[Converted] = []
    run_jobs(_convert, [(source, target)], 1, lambda _, result: results.append(result))
    return results[0]


def _convert(paths: tuple[Path, Path]) -> Converted:
    source, target = paths
    _bound_this_process(source)
    found_in, weights = _find_weights(source, _read(source))
    try:
        tensors = {
            bare_name(name): tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in weights.items()
        }
    except (RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{source} holds tensors too large for memory.") from error
    if len(tensors) < len(weights):
        raise CheckpointError(f"{source} holds the same weights both with and without a wrapper.")
    with store.atomic(target) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Converted(target, len(tensors), parameters, found_in)


def _bound_this_process(source: Path) -> None:
    """Cap memory and time, so that a crafted file ends this worker and nothing else."""
    mapped_pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = mapped_pages * resource.getpagesize() + 4 * source.stat().st_size + _SPARE_BYTES
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
            f"{source} holds other things than tensors{f' ({culprit[1]})' if culprit else ''}, and "
            "reading those could run code. Where it was made, save `model.state_dict()` alone."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{source} cannot be read as weights: {reason}") from error


def _find_weights(source: Path, content: Any) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        content = {BARE: content}
    path: tuple[str, ...] = ()
    while isinstance(content, Mapping):
        nest = next((key for key in _NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is None:
            break
        path, content = (*path, nest), content[nest]
    where = f"{source}, under {'.'.join(path)}," if path else f"{source}"
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{where} holds {type(content).__name__} and no weights by name; save "
            "`model.state_dict()`."
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{where} holds {name!r} = {type(value).__name__}, which is no tensor; save "
                "`model.state_dict()` alone, or under the key 'state_dict'."
            )
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(
                f"{where} holds {name!r}, a sparse, quantised or empty tensor; save plain ones."
            )
    return path, dict(content)
