"""The training loop of a learning algorithm: training set in, model out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.store.errors import DataloupeError
from engine.store.spec import AlgorithmSpec
from engine.tasks import Task
from engine.training.stepping import Training


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
    weights: np.ndarray | None = None,
) -> nn.Module:
    """Train `model` in place and return it in eval mode.

    The same model, data, recipe, seed, device and number of threads give the same bytes. Every
    epoch shuffles the examples anew and drops the last partial batch. The order of a subset is that
    of all examples without the others, so two models with the same seed whose subsets differ in a
    few examples see the rest in the same order. That makes their difference less noisy.

    Args:
        on_epoch: Called after each epoch with (epochs done, mean loss of the epoch).

    Other arguments as of `engine.training.stepping.Training`.

    Raises:
        DataError: There are fewer than two examples.
        DataloupeError: Training diverged.
    """
    training = Training(task, model, arrays, encoding, recipe, seed, device, subset, weights)
    with training.running():
        for epoch in range(recipe.epochs):
            total = torch.zeros((), device=device)
            for _ in range(training.steps_per_epoch):
                total += training.advance()
            mean_loss = total.item() / training.steps_per_epoch
            if not math.isfinite(mean_loss):
                raise _diverged(recipe, f"the loss was {mean_loss} in epoch {epoch + 1}")
            if on_epoch is not None:
                on_epoch(epoch + 1, mean_loss)
    model = training.conclude()
    check_finite(model, recipe)
    return model


def check_finite(model: nn.Module, recipe: AlgorithmSpec) -> None:
    """Raise DataloupeError if a trained model holds NaN or infinite values."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise _diverged(recipe, f"{name} is not finite after the last step")


def _diverged(recipe: AlgorithmSpec, what: str) -> DataloupeError:
    return DataloupeError(
        f"Training diverged: {what}. Try a lower learning_rate than {recipe.learning_rate:g}, or a "
        "longer warmup."
    )
