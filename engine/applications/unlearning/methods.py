"""Unlearning methods. All have the same signature and the same budget.

    method(setup) -> cost

The model is changed in place, in eval mode, so normalization statistics are fixed and dropout is
off. Every method takes steps of a few examples (`Hyper.batch`), with momentum and a learning rate
that falls to 0, until the budget is used up. It starts without optimizer state, because a study
keeps none.

- **matching**: squared error between the model's outputs (`Task.matched`: class logits, log-odds of
  target tokens, or errors of denoising) and the original's plus their predicted change; batches mix
  the forget set and the retain set (Georgiev et al. 2024). A target has no label noise, so batches
  are small: steps are what the budget is short of.
- **oracle**: the same with the actual mean change of oracles, the best possible target.
- **finetune**, **ascent**, **both**: cross entropy down on the retain set, up on the forget set, or
  both at once.
- **scrub**: away from the original model's probabilities on the forget set in the first half of the
  steps; toward them, and the labels, on the retain set in all steps (Kurmanji et al. 2023).
- **nothing** leaves the model as it is. Retraining is an oracle, which is trained elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.applications.unlearning.settings import FORWARD, Cost, Hyper
from engine.store.errors import DataloupeError
from engine.tasks import Task
from engine.tasks.classification import logits
from engine.tasks.outcomes import matched_named

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch

MOMENTUM = 0.9


@dataclass(frozen=True)
class Examples:
    """Examples to learn from, on the model's device.

    Attributes:
        batch: All examples as one prepared batch.
        change: Target change of the matched outputs, `[n, m]`; None if the method needs none.
    """

    batch: Batch
    change: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def rows(self, rows: Tensor) -> Batch:
        """The batch of some of the examples."""
        return {name: tensor[rows] for name, tensor in self.batch.items()}


@dataclass(frozen=True)
class Setup:
    """The input of every method.

    Attributes:
        model: Changed in place; in eval mode.
        forget: Examples of the forget set.
        retain: Examples of the retain set.
        budget: Budget in example-gradients.
    """

    task: Task
    model: nn.Module
    forget: Examples
    retain: Examples
    budget: int
    seed: int
    hyper: Hyper

    def matched(self, part: Examples, rows: Tensor) -> Tensor:
        """What is matched of some examples of a part, `[rows, m]`."""
        assert self.task.matched is not None, f"{self.task.name} has nothing to match"
        return self.task.matched(self.model, part.rows(rows))

    @property
    def relative(self) -> bool:
        """Whether only differences of an example's outputs count."""
        matched = matched_named(self.task.outcomes, self.task.outputs[0].name)
        return matched is not None and matched.relative

    @property
    def parts(self) -> tuple[Examples, Examples]:
        return self.forget, self.retain

    def loss(self, part: Examples, rows: Tensor) -> Tensor:
        """Mean training loss on some examples of a part."""
        return self.task.loss(self.model, part.rows(rows), 0.0).mean()


Method = Callable[[Setup], Cost]
"""See the module's docstring."""


def nothing(setup: Setup) -> Cost:
    """Leave the model as it is."""
    return Cost()


def matching(setup: Setup) -> Cost:
    """Fine-tune toward the model's own outputs plus their predicted change."""
    visits = _visits(setup, _mixed(setup), forward=True)
    targets = []
    for part, visited in zip(setup.parts, visits.visited, strict=True):
        if part.change is None:
            raise DataloupeError("Matching needs predicted changes of the outputs.")
        before = _before(part, visited, partial(setup.matched, part))
        targets.append(before + setup.hyper.scale * part.change)

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        losses = []
        for part, target, chosen in zip(setup.parts, targets, rows, strict=True):
            off = setup.matched(part, chosen) - target[chosen]
            if setup.relative:  # softmax ignores the mean over classes, and it drifts
                off = off - off.mean(dim=1, keepdim=True)
            losses.append(off.square().mean(dim=1))
        return torch.cat(losses).mean()

    return _descend(setup, visits, loss)


def finetune(setup: Setup) -> Cost:
    """Descend on the retain set: examples that are not repeated may be forgotten."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        return setup.loss(setup.retain, rows[1])

    return _descend(setup, _visits(setup, (0, setup.hyper.batch)), loss)


def ascent(setup: Setup) -> Cost:
    """Ascend on the forget set."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        return -setup.loss(setup.forget, rows[0])

    sizes = min(setup.hyper.batch, len(setup.forget)), 0
    return _descend(setup, _visits(setup, sizes), loss)


def both(setup: Setup) -> Cost:
    """Ascend on the forget set, descend on the retain set."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        away = setup.loss(setup.forget, rows[0])
        return setup.loss(setup.retain, rows[1]) - setup.hyper.weight * away

    return _descend(setup, _visits(setup, _mixed(setup)), loss)


def scrub(setup: Setup) -> Cost:
    """First away from the original on the forget set, always close to it on the retain set."""

    def log_probabilities(part: Examples, rows: Tensor) -> Tensor:
        return logits(setup.model, part.rows(rows)).log_softmax(dim=1)

    visits = _visits(setup, _mixed(setup), forward=True)
    before = [
        _before(part, visited, partial(log_probabilities, part))
        for part, visited in zip(setup.parts, visits.visited, strict=True)
    ]

    def divergence(part: Examples, before: Tensor, chosen: Tensor) -> Tensor:
        now = log_probabilities(part, chosen)
        return functional.kl_div(now, before[chosen], log_target=True, reduction="batchmean")

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        close = divergence(setup.retain, before[1], rows[1])
        close = close + setup.loss(setup.retain, rows[1])
        if step >= visits.steps // 2:
            return close
        return close - setup.hyper.weight * divergence(setup.forget, before[0], rows[0])

    return _descend(setup, visits, loss)


METHODS: Mapping[str, Method] = {
    "nothing": nothing,
    "finetune": finetune,
    "ascent": ascent,
    "both": both,
    "scrub": scrub,
    "matching": matching,
    "oracle": matching,
}
"""Methods by name. Retraining is not one: it makes a new model."""


@dataclass(frozen=True)
class Visits:
    """The examples that a method visits, step by step.

    Attributes:
        steps: Number of steps.
        sizes: Examples of the forget set and of the retain set in each step.
        orders: Row numbers of each part in the order of visits, `[steps · size]`.
        forwards: Examples passed forward once, before the first step.
    """

    steps: int
    sizes: tuple[int, int]
    orders: tuple[Tensor, Tensor]
    forwards: int

    @property
    def visited(self) -> list[Tensor]:
        """Rows of each part that are visited at all."""
        return [order.unique() for order in self.orders]

    def rows(self, step: int) -> list[Tensor]:
        """Rows of each part in a step."""
        return [
            order[step * size : (step + 1) * size]
            for order, size in zip(self.orders, self.sizes, strict=True)
        ]


def _visits(setup: Setup, sizes: tuple[int, int], forward: bool = False) -> Visits:
    """As many steps as the budget allows.

    Args:
        forward: Whether the outputs of the original are needed on the examples that are visited.
    """
    parts = [(len(part), size) for part, size in zip(setup.parts, sizes, strict=True)]

    def forwards(steps: int) -> int:
        return sum(min(n, steps * size) for n, size in parts) if forward else 0

    steps = setup.budget // sum(sizes)
    while steps and steps * sum(sizes) + math.ceil(FORWARD * forwards(steps)) > setup.budget:
        steps -= 1
    generator = torch.Generator().manual_seed(setup.seed)
    device = next(setup.model.parameters()).device
    first, second = (_endless(n, steps * size, generator).to(device) for n, size in parts)
    return Visits(steps, sizes, (first, second), forwards(steps))


def _mixed(setup: Setup) -> tuple[int, int]:
    """Examples of the forget set and of the retain set in a batch, at least one of each."""
    batch, share = setup.hyper.batch, setup.hyper.forget_share
    first = min(max(1, round(share * batch)), len(setup.forget), batch - 1)
    return first, min(batch - first, len(setup.retain))


@torch.no_grad()
def _before(part: Examples, visited: Tensor, outputs: Callable[[Tensor], Tensor]) -> Tensor:
    """Outputs of the original on one part, `[n, m]`; 0 for examples that are not visited."""
    first = outputs(visited[:1])
    found = first.new_zeros(len(part), first.shape[1])
    for rows in visited.split(512):
        found[rows] = outputs(rows)
    return found


def _descend(setup: Setup, visits: Visits, loss: Callable[[int, list[Tensor]], Tensor]) -> Cost:
    """Take all steps; `loss` gets rows of the forget and retain sets."""
    rate = setup.hyper.learning_rate
    optimizer = torch.optim.SGD(setup.model.parameters(), rate, momentum=MOMENTUM)
    for step in range(visits.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / visits.steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss(step, visits.rows(step)))
        optimizer.step()
    return Cost(visits.steps * sum(visits.sizes), visits.forwards)


def _endless(n: int, length: int, generator: torch.Generator) -> Tensor:
    """Row numbers: consecutive shuffles of all rows."""
    rounds = -(-length // n)
    shuffles = [torch.randperm(n, generator=generator) for _ in range(rounds)]
    return torch.cat(shuffles)[:length] if shuffles else torch.empty(0, dtype=torch.int64)
