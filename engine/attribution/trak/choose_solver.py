"""Choose how TRAK's linear system is solved: by the dual or by the primal.

    τ(x) = (mean_m Q_m)^t ⊙ mean_m( Φ_m (Φ_mᵀW_mΦ_m + λ_m I)⁻¹ φ_m(x) ),    W_m = diag(Q_m^t)

`dual` and `primal` compute the second factor for one checkpoint m.

The paper has t = 1 and W = I (TRAK, arXiv 2303.14186, section 3). But a model is far more confident
on an example it was trained on than on one it was not, so at the trained weights Q is far too small
for most training examples. Tempering Q (t = ½), and using it for the curvature of the loss as a
Gauss-Newton step does, raised LDS by a third and more on both workloads of DESIGN section 6.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from engine.attribution.scores.packed_rows import Storage
from engine.attribution.trak.kernel import feature_parameters, kernel_bytes
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.plan import Batch, Output, Plan
from engine.attribution.trak.solver import Kind, Solver
from engine.store.errors import SpecError
from engine.store.spec import TrakSpec

DUAL_LIMIT = 40_000
"""With more training examples than this, the dual's n³ solve costs more than the primal."""

TEMPERING = 0.5
DAMPING = 1.5
"""This λ did well with one and with five checkpoints on both workloads of DESIGN section 6; LDS is
flat around it. Generalized cross-validation and effective dimension chose no better value."""
SAMPLED_DAMPING = 0.1
"""λ where curvature is sampled. The LDS of pictures that a diffusion model of 600 examples made is
flat below .3 (benchmarks.diffusion)."""
MOST_SAMPLES = 16
"""Random gradients of a training example: four more hardly raised that LDS."""
STORAGE: Storage = "int4"
"""It costs less than a hundredth of the LDS, and six times fewer bytes (benchmarks.storage)."""


def choose_solver(
    model: nn.Module,
    output: Output,
    batch: Batch,
    n_train: int,
    n_test: int,
    spec: TrakSpec,
    memory_bytes: int,
) -> Solver:
    """Choose the dual or the primal by the number of examples and by memory.

    Args:
        model: Any checkpoint, in eval mode.
        output: The task's model output.
        batch: A few prepared examples.
        n_train: Training examples.
        n_test: Test examples.
        spec: `[trak]` of study.toml; the choice made there is taken if it fits.
        memory_bytes: Memory limit for one checkpoint.

    Raises:
        SpecError: What `spec` names does not fit in memory.
        CheckpointError: The model cannot be attributed.
    """
    plan = plan_gradients(model, output, batch)
    exact = sum(plan.shapes[name].numel() for name in feature_parameters(plan, model))
    exact_bytes = kernel_bytes(plan, model, n_train, n_test, exact)
    wide = min(spec.width, exact)
    wide_bytes = kernel_bytes(plan, model, n_train, n_test, wide)

    def chosen(kind: Kind, width: int, reason: str) -> Solver:
        proj_dim = min(spec.proj_dim, plan.n_parameters) if kind == "primal" else width
        storage: Storage = STORAGE if spec.storage == "auto" else spec.storage
        if kind != "primal":  # the dual stores scores, and features only for live queries
            storage = "float32"
        return Solver(
            kind,
            width,
            proj_dim,
            DAMPING if spec.damping == "auto" else spec.damping,
            reason,
            TEMPERING if spec.tempering == "auto" else spec.tempering,
            spec.curvature,
            0.0 if spec.soft_threshold == "auto" else spec.soft_threshold,
            storage,
            spec.precision,
        )

    n = f"{n_train:,} training examples"
    if spec.solver == "primal":
        return chosen("primal", _primal_width(spec, plan), "The primal, as study.toml asks.")
    if spec.solver != "auto":
        needed = exact_bytes if spec.solver == "dual-exact" else wide_bytes
        if needed > memory_bytes:
            raise SpecError(
                f"trak.solver = {spec.solver!r} needs {_gib(needed)} for {n}, and "
                f"{_gib(memory_bytes)} are allowed. Raise `trak.memory_gib` or set `trak.solver` "
                "to 'auto'."
            )
        width = exact if spec.solver == "dual-exact" else wide
        return chosen(spec.solver, width, "The dual, as study.toml asks.")
    if n_train > DUAL_LIMIT:
        reason = f"Primal, since {n} are more than the dual's {DUAL_LIMIT:,}."
        return chosen("primal", _primal_width(spec, plan), reason)
    if exact <= spec.width and exact_bytes <= memory_bytes:
        return chosen("dual-exact", exact, f"Exact kernel without projection: {n} fit in memory.")
    if wide_bytes <= memory_bytes:
        reason = f"Kernel of {wide:,} projected features: {n} fit in memory."
        return chosen("dual-wide", wide, reason)
    reason = f"Primal, since the kernel of {n} needs {_gib(wide_bytes)} of {_gib(memory_bytes)}."
    return chosen("primal", _primal_width(spec, plan), reason)


def with_sampled_curvature(solver: Solver, spec: TrakSpec, n_train: int) -> Solver:
    """The primal whose Gram matrix is the Gauss-Newton matrix of the loss, from random gradients of
    what is predicted: twice as many as there are features, where `MOST_SAMPLES` allows it."""
    return replace(
        solver,
        curvature="sampled",
        samples=min(MOST_SAMPLES, math.ceil(2 * solver.proj_dim / n_train)),
        damping=SAMPLED_DAMPING if spec.damping == "auto" else spec.damping,
        tempering=1.0 if spec.tempering == "auto" else spec.tempering,
        reason="Primal, since the curvature of the loss is sampled.",
    )


def _primal_width(spec: TrakSpec, plan: Plan) -> int:
    return min(max(spec.width, spec.proj_dim), plan.n_parameters)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
