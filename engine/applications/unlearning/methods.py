"""Ways to make a model forget, all called alike and all with the same number of examples to learn.

    method(asked) -> what it cost

The model is changed in place, in eval mode, so that normalisation statistics stay and dropout is
off: every method takes steps of `BATCH` examples, with momentum and a rate that falls to 0, until
the budget is used up. There is no optimiser state to go on with: a study keeps none.

- **matching**: squared error between the model's logits and its own, changed by what a datamodel
  says that removal does; batches mixed from forget and retain (Georgiev et al. 2024).
- **oracle**: the same with the mean change that real oracles show: the best it could be told.
- **finetune**, **ascent**, **both**: cross entropy down on retain, up on forget, or one of each.
- **scrub**: away from the original model's probabilities on forget in the first half of the steps,
  towards them, and the labels, on retain in all (Kurmanji et al. 2023).
- **nothing** leaves the model as it is; **retrain** is an oracle, made elsewhere.
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
    from engine.tasks import Batch

BATCH = 64
MOMENTUM = 0.9


@dataclass(frozen=True)
class Examples:
    """Examples to learn from, on the model's device.

    Attributes:
        batch: Prepared, all of them.
        change: What the logits should change by, `[n, classes]`; None where a method needs none.
    """

    batch: Batch
    change: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def rows(self, rows: Tensor) -> Batch:
        """Some of them."""
        return {name: tensor[rows] for name, tensor in self.batch.items()}


@dataclass(frozen=True)
class Asked:
    """What every method is given.

    Attributes:
        model: Changed in place; in eval mode.
        forget: Examples to be forgotten.
        retain: Examples not to be.
        budget: In example-gradients.
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


Method = Callable[[Asked], Cost]
"""See the module."""


def nothing(asked: Asked) -> Cost:
    """Leave the model as it is."""
    return Cost()


def matching(asked: Asked) -> Cost:
    """Fine-tune towards the model's own logits and the predicted change of them."""
    goals = []
    for part in asked.parts:
        if part.change is None:
            raise DataloupeError("Matching needs predicted changes of the logits.")
        said = _logits(asked.task, asked.model, part)
        goals.append(said + asked.hyper.scale * part.change)

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        losses = []
        for part, goal, chosen in zip(asked.parts, goals, rows, strict=True):
            # Relative to the other classes: softmax knows no more, and initial logits drift.
            off = asked.task.predict(asked.model, part.rows(chosen)) - goal[chosen]
            losses.append(_centred(off).square().mean(dim=1))
        return torch.cat(losses).mean()

    forwards = sum(map(len, asked.parts))
    cost = _descend(asked, _mixed(asked), loss, _less(asked.budget, forwards))
    return Cost(cost.gradients, forwards)


def finetune(asked: Asked) -> Cost:
    """Descend on retain: what is not repeated may fade."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        return asked.loss(asked.retain, rows[1])

    return _descend(asked, (0, BATCH), loss, asked.budget)


def ascent(asked: Asked) -> Cost:
    """Ascend on forget."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        return -asked.loss(asked.forget, rows[0])

    return _descend(asked, (min(BATCH, len(asked.forget)), 0), loss, asked.budget)


def both(asked: Asked) -> Cost:
    """Ascend on forget, descend on retain."""

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        away = asked.loss(asked.forget, rows[0])
        return asked.loss(asked.retain, rows[1]) - asked.hyper.weight * away

    return _descend(asked, _mixed(asked), loss, asked.budget)


def scrub(asked: Asked) -> Cost:
    """Away from the original on forget first, near it on retain throughout."""
    teacher = copy.deepcopy(asked.model)
    said = [_logits(asked.task, teacher, part).log_softmax(dim=1) for part in asked.parts]
    sizes, forwards = _mixed(asked), sum(map(len, asked.parts))
    budget = _less(asked.budget, forwards)
    half = budget // sum(sizes) // 2

    def apart(part: Examples, was: Tensor, chosen: Tensor) -> Tensor:
        now = asked.task.predict(asked.model, part.rows(chosen)).log_softmax(dim=1)
        return functional.kl_div(now, was[chosen], log_target=True, reduction="batchmean")

    def loss(step: int, rows: list[Tensor]) -> Tensor:
        near = apart(asked.retain, said[1], rows[1])
        near = near + asked.loss(asked.retain, rows[1])
        if step >= half:
            return near
        return near - asked.hyper.weight * apart(asked.forget, said[0], rows[0])

    cost = _descend(asked, sizes, loss, budget)
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
"""`retrain` is not among them: it makes a new model."""


def _less(budget: int, forwards: int) -> int:
    """What so many forward passes leave of a budget."""
    return max(0, budget - math.ceil(FORWARD * forwards))


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


@torch.no_grad()
def _logits(task: Task, model: nn.Module, part: Examples) -> Tensor:
    rows = torch.arange(len(part), device=next(model.parameters()).device).split(512)
    return torch.cat([task.predict(model, part.rows(chosen)) for chosen in rows])


def _mixed(asked: Asked) -> tuple[int, int]:
    """Examples of either side in a batch, at least one of each."""
    share = asked.hyper.forget_share
    first = min(max(1, round(share * BATCH)), len(asked.forget), BATCH - 1)
    return first, min(BATCH - first, len(asked.retain))


def _descend(
    asked: Asked,
    sizes: tuple[int, int],
    loss: Callable[[int, list[Tensor]], Tensor],
    budget: int,
) -> Cost:
    """Take as many steps as the budget allows; `loss` is of rows of either side."""
    steps, rate = budget // sum(sizes), asked.hyper.learning_rate
    generator = torch.Generator().manual_seed(asked.seed)
    device = next(asked.model.parameters()).device
    optimizer = torch.optim.SGD(asked.model.parameters(), rate, momentum=MOMENTUM)
    orders = [
        _endless(len(part), steps * size, generator)
        for part, size in zip(asked.parts, sizes, strict=True)
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
    """Row numbers: one shuffle of all after the other."""
    rounds = -(-length // n)
    shuffles = [torch.randperm(n, generator=generator) for _ in range(rounds)]
    return torch.cat(shuffles)[:length] if shuffles else torch.empty(0, dtype=torch.int64)
