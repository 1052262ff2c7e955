"""The effect of removing training examples on every output of a model, by one Newton step.

At the trained weights, the training loss without the examples F has the gradient −Σ_{i∈F} ∇ℓ_i
(that of all examples and the weight decay balance). A Newton step on that loss moves the weights by

    δ = (Σ_{i∉F} J_iᵀ H_i J_i + λI)⁻¹ Σ_{i∈F} ∇ℓ_i

with J_i the derivative of example i's class logits and H_i = diag(p) − p pᵀ, the curvature of the
cross entropy: the Gauss–Newton matrix of *all* logits, where TRAK has one output an example. The
predicted change of any output is its derivative along δ. Nothing is projected or stored: conjugate
gradients need one product with the matrix a step, a pass over the training examples. (Koh and
Liang, 2017, for one example; Martens, 2020, for the matrix.)

λ stands for the end of training. Gradient descent for a time T, the sum of its rates, reaches along
an eigenvector of curvature h the share 1 − exp(−hT) of the optimum; a ridge of 1/T reaches
h/(h + 1/T), which is the same for small and for large hT.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attribution.trak.kernel import Batches
from engine.attribution.trak.plan import Output, rows_of
from engine.attribution.trak.removal_direction import Logits, direction, value_and_derivative

Direction = dict[str, Tensor]


def newton_step(
    model: nn.Module,
    logits: Logits,
    loss: Output,
    train: Batches,
    removed: Tensor,
    ridge: float,
    iterations: int,
) -> Direction:
    """δ by parameter name: how the weights move when examples are removed.

    Args:
        model: In eval mode, trained by the cross entropy of its logits.
        logits: Gives the class logits `[batch, classes]` of a batch.
        loss: Gives the training loss `[batch]` of a batch.
        train: Training examples.
        removed: Which of them are removed, bool `[n_train]`.
        ridge: λ, for the sum of the losses.
        iterations: Steps of conjugate gradients; fewer if the system is solved before.
    """
    residual = direction(model, loss, train, removed.float())
    step = {name: torch.zeros_like(tensor) for name, tensor in residual.items()}
    along = {name: tensor.clone() for name, tensor in residual.items()}
    size = _inner(residual, residual)
    for _ in range(iterations):
        if size == 0:
            break
        product = _gauss_newton(model, logits, train, ~removed, along)
        for name, tensor in along.items():
            product[name] += ridge * tensor
        length = size / _inner(along, product)
        for name, tensor in along.items():
            step[name] += length * tensor
            residual[name] -= length * product[name]
        last, size = size, _inner(residual, residual)
        along = {name: residual[name] + size / last * along[name] for name in along}
    return step


def ridge_of(n_train: int, training_time: float, weight_decay: float) -> float:
    """λ for the sum of `n_train` losses.

    Args:
        training_time: Sum of the learning rates of all steps, each divided by 1 − momentum.
    """
    return n_train * (1 / training_time + weight_decay)


def _gauss_newton(
    model: nn.Module, logits: Logits, train: Batches, kept: Tensor, along: Direction
) -> dict[str, Tensor]:
    """Σ_{i kept} J_iᵀ H_i J_i v."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    row = 0
    for batch in train():
        rows = rows_of(batch, row)
        row += len(kept[rows])
        with torch.enable_grad():
            values, change = value_and_derivative(model, logits, batch, along)
            p, moved = values.detach().softmax(dim=1), change.detach()
            curved = p * moved
            curved = curved - p * curved.sum(dim=1, keepdim=True)
            weights = curved * kept[rows].to(curved)[:, None]
            found = torch.autograd.grad(
                values, list(parameters.values()), weights, materialize_grads=True
            )
        for sum_, gradient in zip(total.values(), found, strict=True):
            sum_ += gradient
    return total


def _inner(a: Direction, b: Direction) -> float:
    return float(sum(torch.sum(a[name].double() * b[name].double()) for name in a))
