"""The walk back through a training: adjoints of its end become scores of training examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.attribution.replay.adjoints import (
    Adjoints,
    Products,
    check_twice_differentiable,
    explained,
)
from engine.attribution.replay.states import Recording
from engine.attribution.replay.statistics import (
    Mixed,
    counting_layers,
    inputs_seen,
    pull_back_mixing,
)
from engine.attribution.replay.training import State, Training
from engine.attribution.replay.twice import CheapSecondDerivatives
from engine.attribution.replay.updates import clipped, needs_moments, pull_back_clipping


def walk_back(
    recording: Recording, adjoints: Adjoints, on_step: Callable[[int], None] | None = None
) -> np.ndarray:
    """Derivatives of outputs by the weight of each training example, at weights of 1.

    Args:
        recording: That was run; inside `training.running()`.
        adjoints: At the end of the training. They are used up.
        on_step: Called after each step with the number of steps done.

    Returns:
        Float64 `[outputs, n_examples]`.
    """
    training, products = recording.training, Products()
    scores = np.zeros((len(adjoints.parameters[0]), training.n_examples))
    # Fused attention has no second derivative; the plain one has.
    with sdpa_kernel(SDPBackend.MATH):
        for number, state in enumerate(recording.backwards()):
            rows, found = step_back(training, state, adjoints, products)
            scores[:, rows] += found.double().cpu().numpy()
            if on_step is not None:
                on_step(number + 1)
    return scores


def step_back(
    training: Training, state: State, adjoints: Adjoints, products: Products
) -> tuple[np.ndarray, Tensor]:
    """Turn adjoints after a step, in place, into those before it.

    Args:
        training: Put before the step.
        state: The same.

    Returns:
        Rows of the step's batch, and derivatives by their weights in its loss `[outputs, batch]`.
    """
    rows, updates, parameters = training.rows(), training.updates(), list(training.trained)
    layers = counting_layers(training.model) if adjoints.running else []
    # Linear updates need no gradient.
    values = training.most_norm is not None or any(needs_moments(update) for update in updates)
    with torch.enable_grad(), inputs_seen(layers) as seen:
        with CheapSecondDerivatives(values):
            weights = parameters[0].new_ones(len(rows)).requires_grad_(True)
            losses = training.losses(weights)
        loss = (weights * losses).sum() / weights.sum()
        with explained():
            found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        mixed = Mixed([], [])
        if layers:
            adjoints.running, mixed = pull_back_mixing(adjoints.running, seen)
    # The optimizer skips parameters that no gradient reaches.
    reached = [number for number, gradient in enumerate(found) if gradient is not None]
    gradients = [gradient for gradient in found if gradient is not None]
    if training.step == training.n_steps - 1:
        check_twice_differentiable(gradients)
    plain = [gradient.detach() for gradient in gradients]
    small, _ = clipped(plain, training.most_norm)
    vectors = [
        updates[number].pull_back(
            adjoints.parameters[number],
            adjoints.moments[number],
            gradient,
            state.moments[number] if state.moments else {},
        )
        for number, gradient in zip(reached, small, strict=True)
    ]
    pull_back_clipping(vectors, plain, training.most_norm)
    changes = products(
        [*gradients, *mixed.inputs], [*parameters, weights], [*vectors, *mixed.adjoints]
    )
    for adjoint, change in zip(adjoints.parameters, changes, strict=False):
        adjoint.add_(change)
    return rows, changes[-1]
