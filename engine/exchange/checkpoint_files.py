"""Read a user's own checkpoint files without running code from them.

Pickles are read by torch's restricted unpickler, which builds tensors and plain containers only.
Checkpoints of training frameworks also hold settings, whose classes it refuses: an empty
stand-in takes the place of each such object, so nothing of it is imported or run.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from engine.store.errors import CheckpointError
from engine.training.weight_names import with_copies

INDEX = ".index.json"
"""End of the name of a file that lists the parts of a checkpoint that was saved in parts."""


class StandIn:
    """Stands for an object that was not read. Subclasses are named like the object's class."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _MappingStandIn(StandIn):
    """Stands for a mapping of a class of its own; its items are read."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _ListStandIn(StandIn):
    """Stands for a sequence of a class of its own; its items are read."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


def read_checkpoint(source: Path) -> Any:
    """The content of a .safetensors, .pt, .pth, .ckpt or .bin file, or of an index of parts.

    Raises:
        CheckpointError: The file cannot be read, or is not made of tensors and plain containers.
    """
    try:
        if source.name.endswith(INDEX):
            return _read_parts(source)
        if source.suffix == ".safetensors":
            return _read_safetensors(source)
        return _read_pickle(source)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL|global:?|class) '?([\w.]+\.\w+)", str(error))
        raise CheckpointError(
            f"{source} holds objects other than tensors{f' ({culprit[1]})' if culprit else ''}, "
            "and reading those could run code. Save only `model.state_dict()` where the model was "
            "trained."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{source} cannot be read as weights: {reason}") from error


def files_of(source: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors: itself, or the parts that an index lists.

    Raises:
        CheckpointError: The index is damaged, or a part is missing or in another folder.
    """
    if not source.name.endswith(INDEX):
        return [source]
    try:
        names = sorted(set(json.loads(source.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source} is not an index of a checkpoint's parts: it has no `weight_map`."
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(INDEX):
            raise CheckpointError(f"{source} names {name!r}, which is not a file beside it.")
        if not (source.parent / name).is_file():
            raise CheckpointError(
                f"{source} names the part {name}, which is missing. Copy it, too."
            )
    return [source.parent / name for name in names]


def _read_parts(source: Path) -> dict[str, Any]:
    wanted = json.loads(source.read_text(encoding="utf-8"))["weight_map"]
    tensors: dict[str, Any] = {}
    for part in files_of(source):
        content = read_checkpoint(part)
        tensors.update({name: content[name] for name in content if name in wanted})
    if missing := [name for name in wanted if name not in tensors]:
        raise CheckpointError(f"{source} names the tensor {missing[0]!r}, which no part holds.")
    return tensors


def _read_safetensors(source: Path) -> dict[str, torch.Tensor]:
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        copies = with_copies(dict.fromkeys(tensors, ()), file.metadata() or {})
    return tensors | {name: tensors[kept] for name, kept in copies.items()}


def _read_pickle(source: Path) -> Any:
    kinds: dict[str, type[StandIn]] = {}
    while True:
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
            (type(name, (kind,), {"__module__": "not read"}), name) for name, kind in kinds.items()
        ]
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
                warnings.simplefilter("ignore")  # of pickle protocols other than 2
                return torch.load(source, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if not _learn(str(error), source, kinds):
                raise


def _learn(message: str, source: Path, kinds: dict[str, type[StandIn]]) -> bool:
    """Find stand-ins for what the unpickler refused; whether there is something new to try."""
    if not kinds:
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(source)
        except Exception:  # the format of old versions of torch
            return False
        kinds.update(dict.fromkeys(names, StandIn))
        return bool(names)
    refused = re.search(r"Can only (\w+).* but got <class 'not read\.([^']+)'>", message)
    if refused is None or kinds.get(refused[2]) is not StandIn:
        return False
    adds_items = refused[1] in ("SETITEM", "SETITEMS")
    kinds[refused[2]] = _MappingStandIn if adds_items else _ListStandIn
    return True
