"""Unlearning methods. All have the same signature and the same budget.

    method(setup) -> cost

The model is changed in place, in eval mode, so normalization statistics are fixed and dropout is
off. Every method takes steps of `BATCH` examples, with momentum and a learning rate that falls to
0, until the budget is used up. It starts without optimizer state, because a study keeps none.

- **matching**: squared error between the model's logits and the original's logits plus their
  predicted change; batches mix the forget set and the retain set (Georgiev et al. 2024).
- **oracle**: the same with the actual mean change of oracles, the best possible target.
- **finetune**, **ascent**, **both**: cross entropy down on the retain set, up on the forget set, or
  both at once.
- **scrub**: away from the original model's probabilities on the forget set in the first half of the
  steps; toward them, and the labels, on the retain set in all steps (Kurmanji et al. 2023).
- **nothing** leaves the model as it is. Retraining is an oracle, which is trained elsewhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.applications.unlearning.settings import FORWARD, Cost, Hyper
from engine.store.errors import DataloupeError
from engine.tasks import Task

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch

BATCH = 64
MOMENTUM = 0.9


@dataclass(frozen=True)
class Examples:
    """Examples to learn from, on the model's device.

    Attributes:
        batch: All examples as one prepared batch.
        change: Target change of the logits, `[n, classes]`; None if the method needs none.
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

    @property
    def parts(self) -> tuple[Examples, Examples]:
        return self.forget, self.retain

    def loss(self, part: Examples, rows: Tensor) -> Tensor:
        """Mean cross entropy on some examples of a part."""
        return self.task.loss(self.model, part.rows(rows), 0.0).mean()


Method = Callable[[Setup], Cost]
"""See the module's docstring."""


def nothing(setup: Setup) -> Cost:
    """Leave the model as it is."""
    return Cost()


def matching(setup: Setup) -> Cost:
    """Fine-tune toward the model's own logits plus their predicted change."""
    targets = []
    for part in setup.parts:
        if part.change is None:
            raise DataloupeError("Matching needs predicted changes of the logits.")
        logits = _logits(setup.task, setup.model, part)
        targets.append(logits + setup.hyper.scale * part.change)

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        losses = []
        for part, target, chosen in zip(setup.parts, targets, rows, strict=True):
            # Relative to the mean over classes: softmax ignores the mean, and it drifts.
            off = setup.task.predict(setup.model, part.rows(chosen)) - target[chosen]
            losses.append(_centered(off).square().mean(dim=1))
        return torch.cat(losses).mean()

    forwards = sum(map(len, setup.parts))
    cost = _descend(setup, _mixed(setup), loss, _left(setup.budget, forwards))
    return Cost(cost.gradients, forwards)


def finetune(setup: Setup) -> Cost:
    """Descend on the retain set: examples that are not repeated may be forgotten."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        return setup.loss(setup.retain, rows[1])

    return _descend(setup, (0, BATCH), loss, setup.budget)


def ascent(setup: Setup) -> Cost:
    """Ascend on the forget set."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        return -setup.loss(setup.forget, rows[0])

    return _descend(setup, (min(BATCH, len(setup.forget)), 0), loss, setup.budget)


def both(setup: Setup) -> Cost:
    """Ascend on the forget set, descend on the retain set."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        away = setup.loss(setup.forget, rows[0])
        return setup.loss(setup.retain, rows[1]) - setup.hyper.weight * away

    return _descend(setup, _mixed(setup), loss, setup.budget)


def scrub(setup: Setup) -> Cost:
    """First away from the original on the forget set, always close to it on the retain set."""
    teacher = copy.deepcopy(setup.model)
    before = [_logits(setup.task, teacher, part).log_softmax(dim=1) for part in setup.parts]
    sizes, forwards = _mixed(setup), sum(map(len, setup.parts))
    budget = _left(setup.budget, forwards)
    half = budget // sum(sizes) // 2

    def divergence(part: Examples, before: Tensor, chosen: Tensor) -> Tensor:
        now = setup.task.predict(setup.model, part.rows(chosen)).log_softmax(dim=1)
        return functional.kl_div(now, before[chosen], log_target=True, reduction="batchmean")

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        close = divergence(setup.retain, before[1], rows[1])
        close = close + setup.loss(setup.retain, rows[1])
        if step >= half:
            return close
        return close - setup.hyper.weight * divergence(setup.forget, before[0], rows[0])

    cost = _descend(setup, sizes, loss, budget)
    return Cost(cost.gradients, forwards)


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


def _left(budget: int, forwards: int) -> int:
    """The rest of a budget after some forward passes."""
    return max(0, budget - math.ceil(FORWARD * forwards))


def _centered(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


@torch.no_grad()
def _logits(task: Task, model: nn.Module, part: Examples) -> Tensor:
    rows = torch.arange(len(part), device=next(model.parameters()).device).split(512)
    return torch.cat([task.predict(model, part.rows(chosen)) for chosen in rows])


def _mixed(setup: Setup) -> tuple[int, int]:
    """Examples of the forget set and of the retain set in a batch, at least one of each."""
    share = setup.hyper.forget_share
    first = min(max(1, round(share * BATCH)), len(setup.forget), BATCH - 1)
    return first, min(BATCH - first, len(setup.retain))


def _descend(
    setup: Setup,
    sizes: tuple[int, int],
    loss: Callable[[int, list[Tensor]], Tensor],
    budget: int,
) -> Cost:
    """Take as many steps as the budget allows; `loss` gets rows of the forget and retain sets."""
    steps, rate = budget // sum(sizes), setup.hyper.learning_rate
    generator = torch.Generator().manual_seed(setup.seed)
    device = next(setup.model.parameters()).device
    optimizer = torch.optim.SGD(setup.model.parameters(), rate, momentum=MOMENTUM)
    orders = [
        _endless(len(part), steps * size, generator)
        for part, size in zip(setup.parts, sizes, strict=True)
    ]
    for step in range(steps):
        rows = [
            order[step * size : (step + 1) * size].to(device)
            for order, size in zip(orders, sizes, strict=True)
        ]
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss(step, rows))
        optimizer.step()
    return Cost(steps * sum(sizes))


def _endless(n: int, length: int, generator: torch.Generator) -> Tensor:
    """Row numbers: consecutive shuffles of all rows."""
    rounds = -(-length // n)
    shuffles = [torch.randperm(n, generator=generator) for _ in range(rounds)]
    return torch.cat(shuffles)[:length] if shuffles else torch.empty(0, dtype=torch.int64)
