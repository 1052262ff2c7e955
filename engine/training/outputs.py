"""Prepared batches of a dataset, and the outputs of a trained model on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from engine.attribution.trak.make_plan import PROOF_EXAMPLES
from engine.attribution.trak.plan import ROWS, in_order, rows_of
from engine.data.places.decoded import FEWEST_AHEAD, read_ahead
from engine.models.classifier import Classifier, Embeds
from engine.models.ready import in_fast_layout, keeps_layout, use_fast_layout
from engine.store.layout import ROWS_PER_SHARD
from engine.tasks import Task
from engine.training.length_buckets import length_buckets

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
    stop = _end(arrays, stop)
    ahead = batch_size + max(batch_size, FEWEST_AHEAD)
    for first in range(start, stop, batch_size):
        read_ahead(arrays, np.arange(first, min(first + ahead, stop)))
        rows = slice(first, min(first + batch_size, stop))
        yield read_batch(task, arrays, rows, encoding, device)


def batches_by_length(
    task: Task,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    batch_size: int,
    device: str,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Batch]:
    """Yield rows `start` to `stop` as prepared batches with little padding.

    If the task pads a batch to its longest row, rows of about one length come together, and a batch
    has their numbers, counted from `start`, as `ROWS`. They are sorted within the shards of a
    study, so that little is read at once, and a shard has the same batches whether or not others
    are computed with it. The first rows are batches of their own, in order, because plans are made
    with them. Batches of other tasks come in order.
    """
    stop = _end(arrays, stop)
    low = start
    if task.lengths is not None and stop - start > batch_size:
        while low < stop:
            high = min(stop, (low // ROWS_PER_SHARD + 1) * ROWS_PER_SHARD)
            shard = {name: array[low:high] for name, array in arrays.items()}
            lengths = task.lengths(shard, encoding)
            if lengths is None:
                break
            few = min(PROOF_EXAMPLES, high) if low == 0 else 0
            first = [np.arange(i, min(i + batch_size, few)) for i in range(0, few, batch_size)]
            for rows in [*first, *(few + r for r in length_buckets(lengths[few:], batch_size))]:
                batch = read_batch(task, shard, rows, encoding, device)
                yield {**batch, ROWS: torch.from_numpy(low - start + rows)}
            low = high
    yield from batches(task, arrays, encoding, batch_size, device, low, stop)


def _end(arrays: Mapping[str, np.ndarray], stop: int | None) -> int:
    """Where rows end: at `stop`, but not past the arrays, all of which have a first dimension n."""
    n = min(len(array) for array in arrays.values())
    return n if stop is None else min(stop, n)


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
        f), `out_to_loss` [n] (Q), and, where the model has `embed`, `embeddings` [n, d]; float32,
        or whole numbers where the task keeps such, in the order of the data.
    """
    model = to_device(model, device).eval()
    parts: dict[str, list[torch.Tensor]] = {}
    rows: list[torch.Tensor | slice] = []
    for batch in batches_by_length(task, arrays, encoding, batch_size, device):
        rows.append(rows_of(batch, 0))
        for name, tensor in evaluate_batch(task, model, batch).items():
            parts.setdefault(name, []).append(tensor.cpu())
    return {name: in_order(chunks, rows).numpy() for name, chunks in parts.items()}


@torch.no_grad()
def evaluate_batch(task: Task, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Run a model in eval mode on a prepared batch. Returns the same as `evaluate`, as tensors."""
    observed = _OneForward(model)
    output = task.outputs[0]
    found = {
        **task.record(observed, batch),
        "out_to_loss": output.weight(observed, batch),
    }
    if "output" not in found:
        found["output"] = output.value(observed, batch)
    if observed.embeddings is not None:
        found["embeddings"] = observed.embeddings.flatten(1)
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in found.items()
    }


def to_device(model: nn.Module, device: str) -> nn.Module:
    """Move a model to `device`; on a CPU its convolutions take channels_last pictures."""
    model = model.to(device)
    if device == "cpu":
        use_fast_layout(model)
    return model
