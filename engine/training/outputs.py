"""Prepared batches of a dataset, and the outputs of a trained model on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from engine.models.classifier import Classifier, Embeds
from engine.models.ready import in_fast_layout, keeps_layout, use_fast_layout
from engine.tasks import Task

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch


def read_batch(
    task: Task,
    arrays: Mapping[str, np.ndarray],
    rows: np.ndarray | slice,
    encoding: dict[str, Any],
    device: str,
) -> Batch:
    """Copy `rows` of the (often memory-mapped) arrays to `device` and prepare them for the model.

    On a CPU, pictures are channels_last in memory, which makes convolutions faster.
    """
    raw = {name: torch.from_numpy(np.array(array[rows])) for name, array in arrays.items()}
    batch = task.prepare({name: tensor.to(device) for name, tensor in raw.items()}, encoding)
    return {name: in_fast_layout(tensor) for name, tensor in batch.items()}


def batches(
    task: Task,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    batch_size: int,
    device: str,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Batch]:
    """Yield rows `start` to `stop` (the end where None) as prepared batches, in order.

    The last batch may be smaller. Memory-mapped arrays are read one batch at a time.
    """
    n = min(len(array) for array in arrays.values())
    stop = n if stop is None else min(stop, n)
    for first in range(start, stop, batch_size):
        rows = slice(first, min(first + batch_size, stop))
        yield read_batch(task, arrays, rows, encoding, device)


class _OneForward(nn.Module):
    """A model that keeps its last answer, so that several functions share one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._given: tuple[torch.Tensor, ...] = ()
        self._answer: Any = None
        self.embeddings: torch.Tensor | None = None

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Any:
        given = (*inputs, *named.values())
        if len(given) != len(self._given) or any(
            new is not old for new, old in zip(given, self._given, strict=True)
        ):
            self._given = given
            self.embeddings, self._answer = _embed_and_predict(self.model, inputs, named)
        return self._answer


def _embed_and_predict(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
) -> tuple[torch.Tensor | None, Any]:
    if isinstance(model, Classifier):
        embeddings = model.embed(*inputs)
        return embeddings, model.head(embeddings)
    if isinstance(model, Embeds):
        return model.embed_and_answer(*inputs, **named)
    answer = model(*inputs, **named)
    embed = getattr(model, "embed", None)
    if embed is None or isinstance(embed, nn.Module):  # a layer of that name, not our method
        return None, answer
    if keeps_layout(model):
        inputs = tuple(tensor.contiguous() for tensor in inputs)
    return embed(*inputs, **named), answer


@torch.no_grad()
def evaluate(
    task: Task,
    model: nn.Module,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    batch_size: int,
    device: str,
) -> dict[str, np.ndarray]:
    """Run a model (put in eval mode) over a dataset of n examples.

    Returns:
        The task's record, such as `logits` [n, classes]; `output` [n] (the default model output
        f), `out_to_loss` [n] (Q), and, where the model has `embed`, `embeddings` [n, d]; all
        float32.
    """
    model = to_device(model, device).eval()
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches(task, arrays, encoding, batch_size, device):
        for name, tensor in evaluate_batch(task, model, batch).items():
            parts.setdefault(name, []).append(tensor.cpu().numpy())
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


@torch.no_grad()
def evaluate_batch(task: Task, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Run a model in eval mode on a prepared batch. Returns the same as `evaluate`, as tensors."""
    observed = _OneForward(model)
    output = task.outputs[0]
    found = {
        **task.record(observed, batch),
        "output": output.value(observed, batch),
        "out_to_loss": output.weight(observed, batch),
    }
    if observed.embeddings is not None:
        found["embeddings"] = observed.embeddings.flatten(1)
    return {name: tensor.float() for name, tensor in found.items()}


def to_device(model: nn.Module, device: str) -> nn.Module:
    """Move a model to `device`; on a CPU its convolutions take channels_last pictures."""
    model = model.to(device)
    if device == "cpu":
        use_fast_layout(model)
    return model
