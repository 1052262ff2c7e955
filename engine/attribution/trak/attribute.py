"""TRAK for one checkpoint: which solver to take, and the pieces of each.

    τ(x) = (mean_m Q_m)^t ⊙ mean_m( Φ_m (Φ_mᵀW_mΦ_m + λ_m I)⁻¹ φ_m(x) ),    W_m = diag(Q_m^t)

This module gives the second factor of one checkpoint m. *Dual*: `attribute_dual` gives the whole
matrix at once. *Primal*: `features` of the training examples are stored once, `gram` and
`test_factors` turn test features so that a block of scores is `test_factors @ block.T`.

DESIGN section 5 has t = 1 in front and W = I. A model is far surer of what it was trained on than
it would be had it not seen it, so that Q at the trained weights is far too small for most examples.
Tempering it (t = ½) and using it for the curvature of the loss too, as a Gauss-Newton step does
(the papers drop W), raised LDS by a third and more on both workloads of DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from engine.attribution.trak.gradients import Batch, Output, Plan, plan_gradients
from engine.attribution.trak.kernel import (
    Batches,
    damp,
    feature_parameters,
    first_examples,
    kernel_bytes,
    make_kernel,
    singular,
    solve,
)
from engine.attribution.trak.projection import Projection, check_projection, make_projection
from engine.attribution.trak.solver import Solver
from engine.store.errors import SpecError
from engine.store.spec import TrakSpec

DUAL_LIMIT = 40_000
"""Beyond so many training examples the n³ solve costs more than the primal."""

TEMPERING = 0.5
DAMPING = 1.5
"""λ that did well with one and with five checkpoints on both workloads of DESIGN section 6, where
LDS is flat around it. Generalised cross-validation and effective dimension chose no better."""


def temper(out_to_loss: Tensor, solver: Solver) -> Tensor:
    """Q^t: what the scores are multiplied by (mean Q) and what `attribute_dual` and `gram` weigh
    training examples by (a checkpoint's own Q). Q that is 1 everywhere weighs nothing."""
    return out_to_loss.abs().clamp(min=_LEAST_Q) ** solver.tempering


_LEAST_Q = 1e-8


def choose_solver(
    model: nn.Module,
    output: Output,
    batch: Batch,
    n_train: int,
    n_test: int,
    spec: TrakSpec,
    memory_bytes: int,
) -> Solver:
    """Choose dual or primal by the number of examples and by memory.

    Args:
        model: Any checkpoint, in eval mode.
        output: The task's model output.
        batch: A few prepared examples.
        n_train: Training examples.
        n_test: Test examples.
        spec: `[trak]` of study.toml; a solver named there is taken if it fits.
        memory_bytes: The most that one checkpoint may take.

    Raises:
        SpecError: The solver that `spec` names does not fit in memory.
        CheckpointError: The model cannot be attributed.
    """
    plan = plan_gradients(model, output, batch)
    exact = sum(plan.shapes[name].numel() for name in feature_parameters(plan, model))
    exact_bytes = kernel_bytes(plan, model, n_train, n_test, exact)
    wide = min(spec.width, exact)
    wide_bytes = kernel_bytes(plan, model, n_train, n_test, wide)

    def solver(
        kind: Literal["dual-exact", "dual-wide", "primal"], width: int, reason: str
    ) -> Solver:
        proj_dim = min(spec.proj_dim, plan.n_parameters) if kind == "primal" else width
        return Solver(
            kind,
            width,
            proj_dim,
            DAMPING if spec.damping == "auto" else spec.damping,
            reason,
            TEMPERING if spec.tempering == "auto" else spec.tempering,
            spec.curvature,
            0.0 if spec.soft_threshold == "auto" else spec.soft_threshold,
        )

    n = f"{n_train:,} training examples"
    if spec.solver == "primal":
        return solver("primal", _primal_width(spec, plan), "The primal, as study.toml asks.")
    if spec.solver != "auto":
        needed = exact_bytes if spec.solver == "dual-exact" else wide_bytes
        if needed > memory_bytes:
            raise SpecError(
                f"trak.solver = {spec.solver!r} needs {_gib(needed)} for {n}, and "
                f"{_gib(memory_bytes)} are allowed. Raise `trak.memory_gib` or set `trak.solver` "
                "to 'auto'."
            )
        width = exact if spec.solver == "dual-exact" else wide
        return solver(spec.solver, width, "The dual, as study.toml asks.")
    if n_train > DUAL_LIMIT:
        reason = f"Primal, since {n} are more than the dual's {DUAL_LIMIT:,}."
        return solver("primal", _primal_width(spec, plan), reason)
    if exact <= spec.width and exact_bytes <= memory_bytes:
        return solver("dual-exact", exact, f"Exact kernel without projection: {n} fit in memory.")
    if wide_bytes <= memory_bytes:
        reason = f"Kernel of {wide:,} projected features: {n} fit in memory."
        return solver("dual-wide", wide, reason)
    reason = f"Primal, since the kernel of {n} needs {_gib(wide_bytes)} of {_gib(memory_bytes)}."
    return solver("primal", _primal_width(spec, plan), reason)


def _primal_width(spec: TrakSpec, plan: Plan) -> int:
    return min(max(spec.width, spec.proj_dim), plan.n_parameters)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


# --- dual ----------------------------------------------------------------------------------------


def attribute_dual(
    model: nn.Module,
    output: Output,
    train: Batches,
    test: Batches,
    solver: Solver,
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
        solver: A dual one.
        seed: The checkpoint's own.
        memory_bytes: The most this may take.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`; None weighs all
            the same.

    Raises:
        CheckpointError: The model cannot be attributed.
        DataloupeError: Gradients are zero or not finite, or the damping is too small.
    """
    plan = plan_gradients(model, output, first_examples(train))
    kernel = make_kernel(model, output, train, test, plan, solver.width, seed, memory_bytes)
    weights = None if out_to_loss is None else example_weights(out_to_loss.to(kernel.train), solver)
    return solve(kernel, solver.damping, weights)


def example_weights(out_to_loss: Tensor, solver: Solver) -> Tensor | None:
    """Tempered Q with mean 1, so that checkpoints whose Q differ in size count the same; None
    where all training examples weigh alike."""
    if solver.curvature == "plain":
        return None
    weights = temper(out_to_loss, solver)
    return weights / weights.mean()


# --- primal --------------------------------------------------------------------------------------


def primal_projection(
    model: nn.Module, output: Output, batch: Batch, solver: Solver, seed: int
) -> Projection:
    """Draw and check one checkpoint's projection for the primal.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: The first training examples, `PROOF_EXAMPLES` or more.
        solver: A primal one.
        seed: The checkpoint's own; another seed gives another projection.
    """
    plan = plan_gradients(model, output, batch)
    projection = make_projection(plan, model, solver.width, solver.proj_dim, seed)
    check_projection(model, output, batch, projection)
    return projection


def gram(
    blocks: Iterable[Tensor], solver: Solver | None = None, out_to_loss: Tensor | None = None
) -> Tensor:
    """ΦᵀWΦ `[p, p]`, float32, from blocks `[rows, p]` of training features, streamed.

    Args:
        blocks: Features in the order of the training examples.
        solver: Holds the tempering; only with `out_to_loss`.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`; None: W = I.
    """
    total: Tensor | None = None
    weights: Tensor | None = None
    row = 0
    for block in blocks:
        block = block.float()
        if total is None:
            total = block.new_zeros(block.shape[1], block.shape[1])
            if solver is not None and out_to_loss is not None:
                weights = example_weights(out_to_loss.to(total), solver)
        weighted = block if weights is None else block * weights[row : row + len(block), None]
        total.addmm_(block.T, weighted)
        row += len(block)
    if total is None:
        raise ValueError("there are no training features")
    return total


def test_factors(gram: Tensor, test_features: Tensor, damping: float) -> Tensor:
    """(ΦᵀΦ + λ · mean diag · I)⁻¹ φ(x): `[n_test, p]`; scores of a block are `factors @ block.T`.

    Raises:
        DataloupeError: The damped Gram matrix is not positive definite.
    """
    return torch.cholesky_solve(test_features.float().mT, gram_factor(gram, damping)).mT


def gram_factor(gram: Tensor, damping: float) -> Tensor:
    """Lower Cholesky factor of ΦᵀΦ + λ · mean diag · I.

    Raises:
        DataloupeError: The damped Gram matrix is not positive definite.
    """
    damped = gram.clone()
    damp(damped, damping)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise singular(damping, f"the Gram matrix of {len(gram)} features")
    return factor
