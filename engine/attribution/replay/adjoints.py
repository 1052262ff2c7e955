"""Adjoints: derivatives of outputs by everything that a training step hands to the next."""

from __future__ import annotations

from collections.abc import Sequence
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
        try:
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
                    if "out of memory" in str(error):
                        raise
                    self._together = False
            each = [
                torch.autograd.grad(
                    outputs, inputs, [v[k] for v in vectors], retain_graph=True, allow_unused=True
                )
                for k in range(count)
            ]
        except (RuntimeError, NotImplementedError) as error:
            if "not implemented" not in str(error) and "differentiable twice" not in str(error):
                raise
            raise MissingCapability(
                f"Replay needs second derivatives, which an operation of the model lacks: "
                f"{str(error).splitlines()[0]}"
            ) from error
        joined = [
            None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True)
        ]
        return _with_zeros(joined, inputs, count)


def _with_zeros(
    found: Sequence[Tensor | None], inputs: Sequence[Tensor], count: int
) -> list[Tensor]:
    return [
        torch.zeros(count, *one.shape, dtype=one.dtype, device=one.device) if g is None else g
        for g, one in zip(found, inputs, strict=True)
    ]
