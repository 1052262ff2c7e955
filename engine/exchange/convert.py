"""Convert a user's own checkpoint to safetensors, on the user's own machine.

A worker process with limited memory and time reads the file (`engine.exchange.checkpoint_files`),
which runs no code from it.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine import store
from engine.exchange.checkpoint_files import INDEX, StandIn, files_of, read_checkpoint
from engine.running.processes import run_jobs
from engine.store.errors import CheckpointError
from engine.training.weight_names import bare_name

SINGLE_TENSOR = "tensor"
"""The name given to a tensor that was saved without a name."""
_NESTING_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights", "params", "module")
"""Keys under which people nest a model's weights, the most usual first."""
_NO_MODELS = re.compile("optim|sched|scaler|rng|random", re.IGNORECASE)
"""Keys below which there are tensors that are not weights."""
_DEPTH = 5
_COPY = 0.5
"""Weights with a larger share of names in common are copies of one model."""
_EXTRA_BYTES = 2 * 2**30
_SECONDS = 600

Weights = tuple[tuple[str, ...], Mapping[str, Any]]
"""(keys under which they are nested, the weights by name)."""


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


def default_target(source: Path) -> Path:
    """The name of a converted file: the source's with the suffix .safetensors."""
    return source.with_name(source.name.removesuffix(INDEX)).with_suffix(".safetensors")


def convert(source: Path, target: Path, key: str | None = None) -> Converted:
    """Write the weights in `source` to `target` as safetensors.

    `source` is a .pt, .pth, .ckpt, .bin or .safetensors file, or the .index.json of a checkpoint
    that was saved in parts. Weights may be nested, as in `{"state_dict": …}` of Lightning. Segments
    of names that wrappers add (`module.`, `_orig_mod.`) are removed. A single tensor, such as
    scores of dattri, is named `tensor`. Dtypes are kept.

    Args:
        key: Where in the file the weights are, if it holds several: keys and prefixes of names,
            joined by dots; `.` takes names without the prefixes of copies.

    Raises:
        CheckpointError: `source` is missing, cannot be read, holds anything but tensors, or holds
            several models and no key tells which.
    """
    if not source.is_file():
        raise CheckpointError(f"{source} does not exist or is not a file.")
    if target.exists() and target.samefile(source):
        raise CheckpointError(f"{target} is the source itself. Give the result a different name.")
    results: list[Converted] = []
    run_jobs(_convert, [(source, target, key)], 1, lambda _, result: results.append(result))
    return results[0]


def _convert(request: tuple[Path, Path, str | None]) -> Converted:
    source, target, key = request
    _limit_this_process(source)
    found_in, weights = _find_weights(source, read_checkpoint(source), key)
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
            "of weights only, or choose one with --key."
        )
    with store.atomic(target) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Converted(target, len(tensors), parameters, found_in)


def _limit_this_process(source: Path) -> None:
    """Limit memory and CPU time, so that a malicious file can end this worker at most."""
    mapped_pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = sum(file.stat().st_size for file in files_of(source))
    memory = mapped_pages * resource.getpagesize() + 4 * size + _EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def _find_weights(source: Path, content: Any, key: str | None) -> Weights:
    if isinstance(content, torch.Tensor):
        content = {SINGLE_TENSOR: content}
    path: tuple[str, ...] = ()
    if key is not None:
        path, content = _under(source, content, key)
    found = list(_candidates(content, path))
    if len(found) > 1:
        found = [_choose(source, found)]
    if not found:
        raise CheckpointError(_why_none(source, content, path))
    for name, value in found[0][1].items():
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(
                f"{source} holds {name!r}, a sparse, quantized or meta tensor. Save dense tensors."
            )
    return found[0]


def _candidates(content: Any, path: tuple[str, ...]) -> Iterator[Weights]:
    """All mappings from names to tensors and nothing else, wherever they are nested."""
    if not isinstance(content, Mapping) or len(path) > _DEPTH:
        return
    if content and all(_is_named_tensor(name, value) for name, value in content.items()):
        yield path, content
        return
    for name, value in content.items():
        if isinstance(name, str) and not _NO_MODELS.search(name):
            yield from _candidates(value, (*path, name))


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def _choose(source: Path, found: list[Weights]) -> Weights:
    """The weights under the most usual key, unless others are a copy of the same model."""

    def rank(weights: Weights) -> int:
        usual = [_NESTING_KEYS.index(key) for key in weights[0] if key in _NESTING_KEYS]
        return min(usual, default=len(_NESTING_KEYS))

    first, *others = sorted(found, key=rank)
    names = set(map(bare_name, first[1]))
    rivals = [
        other
        for other in others
        if rank(first) == len(_NESTING_KEYS)
        or len(names & set(map(bare_name, other[1]))) > _COPY * len(names)
    ]
    if rivals:
        choices = " or ".join(f"--key {'.'.join(path)}" for path, _ in (first, *rivals))
        raise CheckpointError(
            f"{source} holds several sets of weights, such as those of a model and of its moving "
            f"average. Choose one: {choices}."
        )
    return first


def _under(source: Path, content: Any, key: str) -> tuple[tuple[str, ...], Any]:
    """What stands under a key: walk through nested keys, then take a prefix of names."""
    path: tuple[str, ...] = ()
    if key == ".":
        path, content = _find_weights(source, content, None)
        return path, {name: value for name, value in content.items() if not _is_copy(name, content)}
    rest = key.strip(".")
    while rest:
        names = (
            [name for name in content if isinstance(name, str)]
            if isinstance(content, Mapping)
            else []
        )
        nested = [
            name
            for name in names
            if isinstance(content[name], Mapping) and f"{rest}.".startswith(f"{name}.")
        ]
        if nested:
            name = max(nested, key=len)
            path, content, rest = (*path, name), content[name], rest[len(name) + 1 :]
            continue
        start = f"{rest}."
        inside = {name[len(start) :]: content[name] for name in names if name.startswith(start)}
        if inside:
            return (*path, rest), inside
        if rest in names:
            return (*path, rest), content[rest]
        inner = [".".join(found) for found, _ in _candidates(content, path) if found]
        starts = list(dict.fromkeys(name.partition(".")[0] for name in names))
        raise CheckpointError(
            f"{source} has nothing under --key {key}. It has {', '.join(inner or starts[:9])}."
        )
    return path, content


def _is_copy(name: str, names: Mapping[str, Any]) -> bool:
    """Whether a name is another one with a prefix."""
    parts = name.split(".")
    return any(".".join(parts[start:]) in names for start in range(1, len(parts)))


def _why_none(source: Path, content: Any, path: tuple[str, ...]) -> str:
    while isinstance(content, Mapping):
        key = next((key for key in _NESTING_KEYS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        path, content = (*path, key), content[key]
    where = f"{source}, under {'.'.join(path)}," if path else f"{source}"
    values = list(content.values()) if isinstance(content, Mapping) else [content]
    if unread := [value for value in values if isinstance(value, StandIn)]:
        return (
            f"{where} holds objects other than tensors ({_type_name(unread[0])}), and reading "
            "those could run code. Save only `model.state_dict()` where the model was trained."
        )
    if not isinstance(content, Mapping) or not content:
        return (
            f"{where} holds {_type_name(content)} and no named weights. Save `model.state_dict()`."
        )
    for name, value in content.items():
        if not _is_named_tensor(name, value):
            return (
                f"{where} holds {name!r} = {_type_name(value)}, which is not a named tensor. "
                "Save `model.state_dict()` only, or under the key 'state_dict'."
            )
    raise AssertionError("these are weights")


def _type_name(value: Any) -> str:
    return type(value).__name__
