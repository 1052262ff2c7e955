"""TRAK's dual: solve with the `[n_train, n_train]` kernel instead of the gradients.

Φ (ΦᵀΦ + λI)⁻¹ φ(x) = (K + λI)⁻¹ k(x),    K = ΦΦᵀ,  k(x) = Φ φ(x)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attribution.trak.kernel import Batches, Kernel, first_examples, make_kernel
from engine.attribution.trak.linear_system import damp, example_weights, not_positive_definite
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.plan import Output
from engine.attribution.trak.solver import Solver


def attribute_dual(
    model: nn.Module,
    output: Output,
    train: Batches,
    test: Batches,
    solver: Solver,
    seed: int,
    memory_bytes: int,
    out_to_loss: Tensor | None = None,
    of_test: Output | None = None,
) -> Tensor:
    """Scores `[n_test, n_train]` of one checkpoint, float32, before multiplication by Q.

    Args:
        model: In eval mode.
        output: What training examples stand with (`engine.tasks.Task.trained_output`).
        train: Training examples.
        test: Test examples.
        solver: `dual-exact` or `dual-wide`.
        seed: Of the projection; different for each checkpoint.
        memory_bytes: Memory limit.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`; None gives all
            the same weight.
        of_test: The output of test examples; None: the same.

    Raises:
        CheckpointError: The model cannot be attributed.
        DataloupeError: Gradients are zero or not finite, or the damping is too small.
    """
    plan = plan_gradients(model, output, first_examples(train))
    kernel = make_kernel(
        model, output, train, test, plan, solver.width, seed, memory_bytes, of_test
    )
    weights = None if out_to_loss is None else example_weights(out_to_loss.to(kernel.train), solver)
    return solve(kernel, solver.damping, weights)


def solve(kernel: Kernel, damping: float, weights: Tensor | None = None) -> Tensor:
    """(K W + λ · mean diag(K W) · I)⁻¹ k in float32 by Cholesky: scores `[n_test, n_train]`.

    With W = diag(weights) this is Φ (ΦᵀWΦ + λI)⁻¹ φ(x), a Gauss-Newton step in which each training
    example counts by the curvature of its loss. Without weights it is plain TRAK.

    Args:
        kernel: From `make_kernel`. It is overwritten.
        damping: λ, relative to the mean of the diagonal.
        weights: Positive, `[n_train]`; None for plain TRAK.

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
    """Lower Cholesky factor of √W K √W + λ · mean diag · I; `root` is the diagonal of √W.

    Only the upper triangle of the kernel is read, and it is overwritten.

    Raises:
        DataloupeError: The damped kernel is not positive definite.
    """
    if root is not None:
        kernel.mul_(root).mul_(root[:, None])
    damp(kernel, damping)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(kernel.mT)  # lower of the transpose = upper
    if failed:
        raise not_positive_definite(damping, f"the kernel of {len(kernel)} training examples")
    return factor
