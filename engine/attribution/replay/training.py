"""What replay needs of a training: `engine.training.stepping.Training` is one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from engine.attribution.replay.updates import Moments, Update


@dataclass(frozen=True)
class State:
    """A training between two steps.

    Attributes:
        step: Steps that are done.
        parameters: Of the trained parameters, in order.
        moments: What the optimizer keeps of each; None where derivatives do not need it.
        buffers: Of the model, by name; only counters where derivatives do not need the others.
        random: States of the generators.
    """

    step: int
    parameters: tuple[Tensor, ...]
    moments: tuple[Moments, ...] | None
    buffers: Mapping[str, Tensor]
    random: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        tensors = [*self.parameters, *self.random, *self.buffers.values()]
        tensors += [tensor for one in self.moments or () for tensor in one.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Training(Protocol):
    """One training, run step by step."""

    model: nn.Module
    trained: Sequence[nn.Parameter]
    n_examples: int
    n_steps: int
    most_norm: float | None
    """Largest norm of a gradient; None: no limit."""

    @property
    def step(self) -> int:
        """Steps that are done."""

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Seed the generators; everything else is done inside, and the caller's are put back."""

    def rows(self) -> np.ndarray:
        """Row numbers of the next step's batch."""

    def losses(self, weights: Tensor | None = None) -> Tensor:
        """Losses `[batch]` of the next step's examples, in train mode.

        Args:
            weights: Of the examples, for a loss in which they meet; None: all 1.
        """

    def advance(self) -> Tensor:
        """Do the next step; return its loss."""

    def updates(self) -> Sequence[Update]:
        """The next step's update of each trained parameter."""

    def state(self, whole: bool) -> State:
        """Copy the state; without `whole` only what derivatives of the next step need."""

    def restore(self, state: State) -> None:
        """Put a state back."""
