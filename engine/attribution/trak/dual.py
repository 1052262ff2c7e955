"""TRAK's dual: solve with the `[n_train, n_train]` kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attribution.trak.kernel import Batches, Kernel, first_examples, make_kernel
from engine.attribution.trak.linear_system import damp, example_weights, singular
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.plan import Output
from engine.attribution.trak.solver import Road


def attribute_dual(
    model: nn.Module,
    output: Output,
    train: Batches,
    test: Batches,
    road: Road,
    seed: int,
    memory_bytes: int,
    out_to_loss: Tensor | None = None,
) -> Tensor:
    """Scores `[n_test, n_train]` of one checkpoint, float32, not yet multiplied by Q.

    Args:
        model: In eval mode.
        output: The task's model output.
        train: Training examples.
        test: Test examples.
        road: A dual one.
        seed: The checkpoint's own.
        memory_bytes: The most this may take.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`; None weighs all
            the same.

    Raises:
        CheckpointError: The model cannot be attributed.
        DataloupeError: Gradients are zero or not finite, or the damping is too small.
    """
    plan = plan_gradients(model, output, first_examples(train))
    kernel = make_kernel(model, output, train, test, plan, road.width, seed, memory_bytes)
    weights = None if out_to_loss is None else example_weights(out_to_loss.to(kernel.train), road)
    return solve(kernel, road.damping, weights)


def solve(kernel: Kernel, damping: float, weights: Tensor | None = None) -> Tensor:
    """(K W + λ · mean diag(K W) · I)⁻¹ k in float32 by Cholesky: scores `[n_test, n_train]`.

    With W = diag(weights) this is Φ (ΦᵀWΦ + λI)⁻¹ φ(x), a Gauss-Newton step in which each training
    example counts by the curvature of its loss; without weights it is TRAK's. The kernel is used
    up.

    Args:
        kernel: From `make_kernel`.
        damping: λ.
        weights: Positive, `[n_train]`.

    Raises:
        DataloupeError: The damped kernel is not positive definite.
    """
    root = None if weights is None else weights.sqrt()
    factor = factorize(kernel.train, damping, root)
    if root is not None:
        kernel.test.mul_(root[:, None])
    scores = torch.cholesky_solve(kernel.test, factor).mT.contiguous()
    return scores if root is None else scores.div_(root)


def factorize(kernel: Tensor, damping: float, root: Tensor | None = None) -> Tensor:
    """Lower Cholesky factor of √W K √W + λ · mean diag · I; `root` is √W's diagonal.

    Only the upper triangle of the kernel counts, and it is used up.

    Raises:
        DataloupeError: The damped kernel is not positive definite.
    """
    if root is not None:
        kernel.mul_(root).mul_(root[:, None])
    damp(kernel, damping)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(kernel.mT)  # lower of the transpose = upper
    if failed:
        raise singular(damping, f"the kernel of {len(kernel)} training examples")
    return factor
