"""Adjoints: derivatives of outputs by everything that a training step hands to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.attribution.replay.statistics import Running
from engine.attribution.replay.updates import Moments
from engine.store.errors import MissingCapability


@dataclass
class Adjoints:
    """Of several outputs at once: the first dimension of every tensor.

    Attributes:
        parameters: Of each trained parameter.
        moments: Of what the optimizer keeps of each.
        running: Of each BatchNorm layer's running mean and variance.
    """

    parameters: list[Tensor]
    moments: list[Moments]
    running: list[Running]

    def add(self, other: Adjoints) -> None:
        """Add those of other outputs where the walk back starts: moments are 0 there."""
        for own, more in zip(self.parameters, other.parameters, strict=True):
            own.add_(more)
        self.running = [
            (mean + more_mean, variance + more_variance)
            for (mean, variance), (more_mean, more_variance) in zip(
                self.running, other.running, strict=True
            )
        ]


class Products:
    """Vector-Jacobian products, for several vectors at once where torch can (vmap), else in turn.

    Which of the two is found out once.
    """

    def __init__(self) -> None:
        self._together = True

    def __call__(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Derivatives `[vectors, ...]` by each input of Σ ⟨output, vector⟩, 0 where there is none.

        Args:
            vectors: `[vectors, ...]` for each output.

        Raises:
            MissingCapability: An operation of the model has no second derivative.
        """
        count = len(vectors[0])
        if count > 1 and self._together:
            try:
                found = torch.autograd.grad(
                    outputs,
                    inputs,
                    vectors,
                    retain_graph=True,
                    allow_unused=True,
                    is_grads_batched=True,
                )
                return _with_zeros(found, inputs, count)
            except RuntimeError as error:
                if _memory(error):
                    raise
                self._together = False
        with explained():
            each = [
                torch.autograd.grad(
                    outputs, inputs, [v[k] for v in vectors], retain_graph=True, allow_unused=True
                )
                for k in range(count)
            ]
        joined = [
            None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True)
        ]
        return _with_zeros(joined, inputs, count)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what torch raises where it cannot differentiate into one line."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if _memory(error):
            raise
        raise MissingCapability(
            "Replay needs second derivatives of the model, and torch cannot compute them: "
            f"{str(error).splitlines()[0]}"
        ) from error


def check_twice_differentiable(gradients: Sequence[Tensor]) -> None:
    """Raise MissingCapability if gradients go through a function that forbids a second one.

    torch raises nothing itself where such a function cuts the graph: the derivative lacks a part.
    """
    nodes = [gradient.grad_fn for gradient in gradients]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        if node.name().endswith("::Error"):
            raise MissingCapability(
                "Replay needs second derivatives of the model, and one of its functions is marked "
                "as once_differentiable."
            )
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        nodes.extend(following)


def _memory(error: Exception) -> bool:
    return "out of memory" in str(error) or "not enough memory" in str(error)


def _with_zeros(
    found: Sequence[Tensor | None], inputs: Sequence[Tensor], count: int
) -> list[Tensor]:
    return [
        torch.zeros(count, *one.shape, dtype=one.dtype, device=one.device) if g is None else g
        for g, one in zip(found, inputs, strict=True)
    ]
