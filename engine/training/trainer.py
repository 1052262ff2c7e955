"""The training loop of a learning algorithm: training set in, model out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.models.hf_folder import name_of
from engine.models.parts import freeze_modes
from engine.models.ready import in_fast_layout
from engine.store import fingerprint_of
from engine.store.errors import DataError, DataloupeError
from engine.store.spec import AlgorithmSpec
from engine.tasks import Task
from engine.training.frozen import keep_frozen
from engine.training.outputs import read_batch, to_device


def train(
    task: Task,
    model: nn.Module,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    recipe: AlgorithmSpec,
    seed: int,
    device: str,
    subset: np.ndarray | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train `model` in place and return it in eval mode.

    The same model, data, recipe, seed, device and number of threads give the same bytes. Every
    epoch shuffles the examples anew and drops the last partial batch. The order of a subset is that
    of all examples without the others, so two models with the same seed whose subsets differ in a
    few examples see the rest in the same order. That makes their difference less noisy.

    Args:
        task: How rows become batches and what the loss is.
        model: With its initial weights.
        arrays: Raw arrays of the training set, `[n, ...]` each.
        encoding: The task's encoding.
        recipe: Optimizer, schedule, epochs, augmentations.
        seed: Fixes the order of examples, the augmentations and any dropout.
        device: `cpu` or `cuda`.
        subset: Row numbers to train on; None takes all. If they are fewer than a batch, they make
            one smaller batch.
        on_epoch: Called after each epoch with (epochs done, mean loss of the epoch).

    Raises:
        DataError: There are fewer than two examples.
        DataloupeError: Training diverged.
    """
    n = min(len(array) for array in arrays.values())
    rows = np.arange(n) if subset is None else np.asarray(subset)
    if len(rows) < 2:
        raise DataError(f"Training needs 2 or more examples, not {len(rows)}.")
    batch_size = min(recipe.batch_size, len(rows))
    steps_per_epoch = len(rows) // batch_size
    n_steps = recipe.epochs * steps_per_epoch
    order, augmentation = _generator("order", seed), _generator("augmentation", seed)
    chosen_rows = np.zeros(n, bool)
    chosen_rows[rows] = True

    model = to_device(model, device).train()
    if recipe.train != "all":
        freeze_modes(model)
    optimizer = _optimizer(model, recipe)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _reproducible(seed, device):
        kept = None
        if recipe.train != "all" and not recipe.augmentations:
            with torch.random.fork_rng(devices=[]):  # dropout of the head draws, too
                kept = keep_frozen(task, model, arrays, encoding, device)
        for epoch in range(recipe.epochs):
            total = torch.zeros((), device=device)
            shuffled = torch.randperm(n, generator=order).numpy()
            shuffled = shuffled[chosen_rows[shuffled]]
            for i in range(steps_per_epoch):
                chosen = shuffled[i * batch_size : (i + 1) * batch_size]
                batch = read_batch(task, arrays, chosen, encoding, device)
                if recipe.augmentations:
                    batch = task.augment(batch, recipe.augmentations, augmentation)
                    batch = {name: in_fast_layout(tensor) for name, tensor in batch.items()}
                rate = learning_rate(recipe, epoch * steps_per_epoch + i, n_steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with kept.standing_for(chosen) if kept is not None else contextlib.nullcontext():
                    loss = task.loss(model, batch, recipe.label_smoothing).mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                if recipe.gradient_clipping is not None:
                    nn.utils.clip_grad_norm_(trained, recipe.gradient_clipping)
                optimizer.step()
                total += loss.detach()
            mean_loss = total.item() / steps_per_epoch
            if not math.isfinite(mean_loss):
                raise _diverged(recipe, f"the loss was {mean_loss} in epoch {epoch + 1}")
            if on_epoch is not None:
                on_epoch(epoch + 1, mean_loss)
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise _diverged(recipe, f"{name} is not finite after the last step")
    return model.eval()


def learning_rate(recipe: AlgorithmSpec, step: int, n_steps: int) -> float:
    """The learning rate of step `step` (from 0): a linear warm-up, then the schedule.

    It is 0 just before the first step and, except for `constant`, just after the last one, so no
    step has a rate of 0.
    """
    n_warm = recipe.warmup * n_steps
    if step + 1 <= n_warm:
        return recipe.learning_rate * (step + 1) / n_warm
    left = (n_steps - step) / (n_steps - math.floor(n_warm))  # in (0, 1]
    falling = {
        "triangular": left,
        "cosine": (1 - math.cos(math.pi * left)) / 2,
        "constant": 1.0,
    }
    return recipe.learning_rate * falling[recipe.schedule]


def _optimizer(model: nn.Module, recipe: AlgorithmSpec) -> torch.optim.Optimizer:
    parameters = _groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        parameters,
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _groups(model: nn.Module, recipe: AlgorithmSpec) -> list[Any]:
    """The trained parameters, those without weight decay in a group of their own."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not decays_weights_only(recipe):
        return list(named.values())
    spared = {
        id(parameter)
        for module in model.modules()
        for key, parameter in module.named_parameters(recurse=False)
        if key.split(".")[-1] == "bias" or "norm" in type(module).__name__.lower()
    }
    groups: list[dict[str, Any]] = [
        {"params": [p for p in named.values() if id(p) not in spared]},
        {"params": [p for p in named.values() if id(p) in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def decays_weights_only(recipe: AlgorithmSpec) -> bool:
    """Whether biases and normalization layers have no weight decay."""
    if recipe.decay != "auto":
        return recipe.decay == "weights"
    transformer = recipe.architecture == "bert-small" or name_of(recipe.architecture) is not None
    return transformer and recipe.optimizer == "adamw"


def _generator(purpose: str, seed: int) -> torch.Generator:
    """A generator on the CPU, which draws the same for every device."""
    return torch.Generator().manual_seed(int(fingerprint_of(purpose, seed), 16) >> 1)


@contextlib.contextmanager
def _reproducible(seed: int, device: str) -> Iterator[None]:
    """Seed the global generators, which dropout draws from, and make cuDNN deterministic."""
    cuda = device.startswith("cuda")
    with (
        torch.random.fork_rng(devices=None if cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield


def _diverged(recipe: AlgorithmSpec, what: str) -> DataloupeError:
    return DataloupeError(
        f"Training diverged: {what}. Try a lower learning_rate than {recipe.learning_rate:g}, or a "
        "longer warmup."
    )
