"""Train on batches whose activations do not fit into memory, with the loss of the whole batch.

The model sees a batch in parts. What it computes inside of a part is forgotten, and computed again
when the gradient comes by (Chen et al. 2016, arXiv 1604.06174; for contrastive losses, Gao et al.
2021, arXiv 2101.06983), so only the answers of all parts are in memory at once. The gradient is
that of the whole batch: in a contrastive loss every other example stays a negative.

Batch norms compute their statistics of a part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.store.errors import SpecError


class InMicroBatches(nn.Module):
    """A model that sees its inputs in parts of `size` examples, 2 or more."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        """What the model gives for all examples.

        Raises:
            SpecError: It gives something that cannot be joined.
        """
        n = len(next(iter([*given, *named.values()])))
        if n <= self.size:
            return self.model(*given, **named)
        parts = []
        for start in range(0, n, self.size):
            rows = slice(start, start + self.size)
            see = partial(self.model, **{name: one[rows] for name, one in named.items()})
            part = checkpoint(
                see,
                *(one[rows] for one in given),
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), _buffers_kept(self.model)),
            )
            parts.append(part)
        return _joined(parts, self.size)


@contextlib.contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Undo what the second forward pass does to buffers, such as running statistics."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _joined(parts: Sequence[Any], size: int) -> Any:
    """The answers of all parts as one; what has no row for each example is that of the first."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts)) if first.ndim and len(first) == size else first
    if isinstance(first, Mapping):
        found = {name: _joined([part[name] for part in parts], size) for name in first}
        return type(first)(**found)
    if isinstance(first, (tuple, list)):
        each = [_joined(some, size) for some in zip(*parts, strict=True)]
        return type(first)(*each) if hasattr(first, "_fields") else type(first)(each)
    if first is None or isinstance(first, (bool, int, float, str)):
        return first
    raise SpecError(
        f"micro_batch_size = {size}: the model gives {type(first).__name__}, of which parts cannot "
        "be joined; let it give tensors, tuples or mappings of them, or remove the key."
    )
