"""The states of a training, from last to first, within a memory bound.

If all fit they are kept. Else only some are, and the training is done again from one to the next:
with levels of `segments` (l₁ > l₂ > … of n steps) every l₁-th state is kept, within a segment of l₁
steps every l₂-th, and so on; of the shortest segment all. Each level costs one more training; one
level needs about 2 √n states, ten need 10 of a thousand steps' each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from engine.attribution.replay.statistics import running_buffers
from engine.attribution.replay.training import State, Training
from engine.store.errors import DataloupeError, MissingCapability

_MOST_LEVELS = 16


def segments(n_steps: int, whole: int, light: int, most: int) -> tuple[int, ...]:
    """Lengths of the segments of each level; empty if all states fit.

    Args:
        whole: Bytes of a state from which training can go on.
        light: Bytes of a state that derivatives need.
        most: The most bytes for states.

    Raises:
        DataloupeError: No number of levels is enough.
    """
    # The first and the last state are always kept whole.
    if 2 * whole + n_steps * light <= most:
        return ()
    needed = []
    for levels in range(1, _MOST_LEVELS + 1):
        branches = max(2, math.ceil(n_steps ** (1 / (levels + 1)) - 1e-9))
        lengths = [max(1, math.ceil(n_steps / branches**level)) for level in range(1, levels + 1)]
        kept = sum(
            math.ceil(outer / inner)
            for outer, inner in zip([n_steps, *lengths[:-1]], lengths, strict=True)
        )
        needed.append((1 + kept) * whole + lengths[-1] * light)
        if needed[-1] <= most:
            return tuple(lengths)
        if lengths[-1] == 1:
            break
    raise DataloupeError(
        f"Replay needs at least {math.ceil(min(needed) / 2**20)} MiB for the states of this "
        f"training, and {max(0, most) // 2**20} MiB are left for them: raise its memory, or ask "
        "for fewer predictions at once."
    )


class Recording:
    """A training that was run, and can be walked back through, more than once.

    Everything is to be called inside `training.running()`.

    Attributes:
        training: At its first step.
        most: The most bytes for states.
        peak: The most bytes that they took.
        loss: Of the last step.
    """

    def __init__(self, training: Training, most: int) -> None:
        self.training = training
        self.peak = 0
        self._most = most
        self._bytes = 0
        self._first: State
        self._last: State
        self._lengths: tuple[int, ...] = ()
        self._light: list[State] = []

    def run(self, on_step: Callable[[int], None] | None = None) -> None:
        """Train from the first step to the last.

        Args:
            on_step: Called after each step with the number of steps done.

        Raises:
            MissingCapability: The model changes buffers that are not those of BatchNorm.
        """
        training = self.training
        self._first = self._kept(training.state(whole=True))
        # The first whole state has no moments yet: one step shows how large the others are.
        for number in range(training.n_steps):
            if number == 1:
                whole, light = training.state(whole=True).size, training.state(whole=False).size
                self._lengths = segments(training.n_steps, whole, light, self._most)
                if self._lengths:
                    self._dropped(self._light)
                    self._light = []
            if not self._lengths:
                self._light.append(self._kept(training.state(whole=False)))
            training.advance()
            if on_step is not None:
                on_step(number + 1)
        self._last = self._kept(training.state(whole=True))
        self._check_buffers()

    def to_last(self) -> None:
        """Put the training to its end."""
        self.training.restore(self._last)

    def backwards(self) -> Iterator[State]:
        """Put the training before its last step, then before the one before, and so on."""
        if not self._lengths:
            for state in reversed(self._light):
                self.training.restore(state)
                yield state
        else:
            yield from self._walk(self._first, self.training.n_steps, 0)

    def _walk(self, start: State, stop: int, level: int) -> Iterator[State]:
        """From step `stop` back to the state `start`."""
        length = self._lengths[level] if level < len(self._lengths) else 1
        innermost = level == len(self._lengths)
        self.training.restore(start)
        kept = [] if innermost else [start]
        while self.training.step < stop:
            if innermost:
                kept.append(self._kept(self.training.state(whole=False)))
            elif self.training.step > start.step and not (self.training.step - start.step) % length:
                kept.append(self._kept(self.training.state(whole=True)))
            if self.training.step + 1 == stop and innermost:
                break
            if not innermost and stop - self.training.step <= length:
                break  # nothing is kept after this
            self.training.advance()
        while kept:
            state = kept.pop()
            if innermost:
                self.training.restore(state)
                yield state
            else:
                yield from self._walk(state, stop, level + 1)
                stop = state.step
            if state is not start:
                self._dropped([state])

    def _kept(self, state: State) -> State:
        self._bytes += state.size
        self.peak = max(self.peak, self._bytes)
        return state

    def _dropped(self, states: list[State]) -> None:
        self._bytes -= sum(state.size for state in states)

    def _check_buffers(self) -> None:
        own = running_buffers(self.training.model)
        for name, before in self._first.buffers.items():
            if name not in own and not torch.equal(before, self._last.buffers[name]):
                raise MissingCapability(
                    f"Replay cannot follow {name!r}, which the model changes while it is trained: "
                    "only the running statistics of BatchNorm layers are differentiated."
                )
