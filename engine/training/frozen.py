"""The frozen blocks of a model run once per training: what they give is kept for every example.

    kept = keep_frozen(task, model, arrays, encoding, device)
    with kept.standing_for(rows):
        loss = task.loss(model, batch, 0.0)      # runs the trained blocks only

Frozen blocks are in eval mode, so they give the same in every epoch. Whether their outputs are kept
follows from the sizes of the data and of the model alone, so the same spec gives the same weights
on every machine. What is kept is computed in the order of the rows, so it does not depend on which
of them are trained on. A process that trains many models on the same data with the same frozen
weights runs the frozen blocks once for all of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.models.parts import blocks_of
from engine.tasks import Task
from engine.training.outputs import batches, read_batch

MOST_BYTES = 2**30
"""Most memory for what is kept."""
_BATCH = 64
_CHECKED = 8
_TOLERANCE = 1e-3
"""Relative difference of losses and gradients that rounding explains."""
_MASK = "attention_mask"


@dataclass(frozen=True)
class BlockOutputs:
    """Outputs of the last frozen block.

    Attributes:
        values: Each example's output, one after the other: `[positions of all examples, ...]`.
        starts: Where each example's begins, and the end of the last.
        in_tuple: Whether the block gives its output in a tuple.
    """

    values: Tensor
    starts: np.ndarray
    in_tuple: bool


@dataclass
class Kept:
    """A model's frozen blocks, in order, and the outputs of the last."""

    blocks: tuple[nn.Module, ...]
    outputs: BlockOutputs
    _rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @contextlib.contextmanager
    def standing_for(self, rows: np.ndarray) -> Iterator[None]:
        """Within it, the blocks give what is kept of these rows, and compute nothing."""
        self._rows = rows
        try:
            for block in self.blocks[:-1]:
                block.forward = self._pass_on  # type: ignore[method-assign]
            self.blocks[-1].forward = self._recall  # type: ignore[method-assign]
            yield
        finally:
            for block in self.blocks:
                block.__dict__.pop("forward", None)

    def _pass_on(self, hidden: Tensor, *args: Any, **named: Any) -> Any:
        return (hidden,) if self.outputs.in_tuple else hidden

    def _recall(self, hidden: Tensor, *args: Any, **named: Any) -> Any:
        values, starts = self.outputs.values, self.outputs.starts
        found = torch.zeros_like(hidden)
        for target, row in zip(found, self._rows, strict=True):
            own = values[starts[row] : starts[row + 1]]
            target[: len(own)] = own[: len(target)]
        return (found,) if self.outputs.in_tuple else found


def keep_frozen(
    task: Task,
    model: nn.Module,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    device: str,
    architecture: str = "",
) -> Kept | None:
    """What a model's frozen blocks give on all rows; None without any, or if that is too much.

    Args:
        model: In train mode, but for its frozen parts.
        architecture: Name and options of the model's. Models with the same, the same frozen weights
            and the same data share what their blocks give.
    """
    found = blocks_of(model)
    if found is None:
        return None
    frozen: list[nn.Module] = []
    for block in found.modules:
        if any(parameter.requires_grad for parameter in block.parameters()):
            break
        frozen.append(block)
    if not frozen:
        return None
    compute = functools.partial(_outputs, task, model, frozen, arrays, encoding, device)
    if sum(array.nbytes for array in arrays.values()) > MOST_BYTES:  # slow to compare
        outputs = compute()
    else:
        settings = [task.name, encoding, device, len(frozen), MOST_BYTES, architecture]
        outputs = _of_last_training(_key(settings, model, arrays), compute)
    if outputs is None:
        return None
    result = Kept(tuple(frozen), outputs)
    return result if _agrees(task, model, arrays, encoding, device, result) else None


_last: tuple[str, BlockOutputs | None] = "", None
"""What the outputs of the process's last training were computed from, and those outputs."""


def _of_last_training(key: str, compute: Callable[[], BlockOutputs | None]) -> BlockOutputs | None:
    """The outputs of the last training if they were computed from the same, else new ones."""
    global _last
    if _last[0] != key:
        _last = "", None  # two at once would need twice the memory
        _last = key, compute()
    return _last[1]


def _key(settings: list[Any], model: nn.Module, arrays: Mapping[str, np.ndarray]) -> str:
    """What the outputs are computed from: settings, the model's shape, frozen weights and data."""
    parts = [json.dumps([*settings, repr(model)], sort_keys=True)]
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not tensor.requires_grad:
            parts += [name, _digest(tensor.detach().cpu().contiguous().numpy())]
    for name, array in arrays.items():
        values = np.ascontiguousarray(array[:])
        parts += [name, str(values.dtype), str(values.shape), _digest(values)]
    return "\n".join(parts)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.data).hexdigest()


def _outputs(
    task: Task,
    model: nn.Module,
    frozen: list[nn.Module],
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    device: str,
) -> BlockOutputs | None:
    """Run the frozen blocks on all rows; None if they give nothing plain, or too much."""
    seen: list[tuple[Any, Any]] = []
    handle = frozen[-1].register_forward_hook(lambda _, args, out: seen.append((args, out)))
    parts: list[Tensor] = []
    lengths: list[int] = []
    in_tuple = False
    n = min(len(array) for array in arrays.values())
    kept = 0
    try:
        with torch.no_grad():
            for batch in batches(task, arrays, encoding, _BATCH, device):
                seen.clear()
                task.loss(model, batch, 0.0)
                output, in_tuple = _plain(seen)
                if output is None:
                    return None
                mask = batch.get(_MASK)
                for row, one in enumerate(output):
                    own = one if mask is None else one[: int(mask[row].sum())]
                    parts.append(own.clone())
                    lengths.append(len(own))
                kept += sum(part.numel() for part in parts[-len(output) :]) * output.element_size()
                if kept * n > MOST_BYTES * len(parts):  # as many bytes for each of all examples
                    return None
    finally:
        handle.remove()
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return BlockOutputs(torch.cat(parts), starts, in_tuple)


def _plain(seen: list[tuple[Any, Any]]) -> tuple[Tensor | None, bool]:
    """The output of a block that was called once and keeps the shape of its input."""
    if len(seen) != 1:
        return None, False
    ((args, output),) = seen
    in_tuple = isinstance(output, tuple)
    inner = output[0] if in_tuple and len(output) == 1 else output
    if not args or not isinstance(inner, Tensor) or inner.shape != args[0].shape:
        return None, False
    return inner, in_tuple


def _agrees(
    task: Task,
    model: nn.Module,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    device: str,
    kept: Kept,
) -> bool:
    """Whether a model has the same losses and gradients with what is kept.

    It does not if something else is trained before the frozen blocks.
    """
    n = min(len(array) for array in arrays.values())
    rows = np.arange(min(_CHECKED, n))[::-1].copy()
    batch = read_batch(task, arrays, rows, encoding, device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def measured() -> list[Tensor]:
        losses = task.loss(model, batch, 0.0)
        gradients = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        return [losses.detach(), *gradients]

    was = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            wanted = measured()
            with kept.standing_for(rows):
                found = measured()
    finally:
        for module, training in was.items():
            module.training = training
    return all(
        (one - other).norm() <= _TOLERANCE * (1e-6 + one.norm())
        for one, other in zip(wanted, found, strict=True)
    )
