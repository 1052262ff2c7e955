"""The optimizer of a recipe: its parameters, their weight decay, and the learning rate per step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from engine.models.hf_folder import name_of
from engine.store.spec import AlgorithmSpec


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


def training_time(recipe: AlgorithmSpec, n_examples: int) -> float:
    """The time for which SGD on `n_examples` follows the gradient: the sum of all learning rates.

    With momentum m, a step goes on for 1/(1 − m) steps.
    """
    n_steps = recipe.epochs * max(1, n_examples // recipe.batch_size)
    rates = sum(learning_rate(recipe, step, n_steps) for step in range(n_steps))
    return rates / (1 - recipe.momentum)


def make_optimizer(model: nn.Module, recipe: AlgorithmSpec) -> torch.optim.Optimizer:
    """The recipe's optimizer for the trained parameters of a model."""
    parameters = parameter_groups(model, recipe)
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


def parameter_groups(model: nn.Module, recipe: AlgorithmSpec) -> list[Any]:
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
