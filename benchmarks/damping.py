"""Which λ suits which solver? LDS on the validation masks, used to choose defaults.

python -m benchmarks.damping --json [--save]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks._report import log, report
from benchmarks.lds import THREADS, Mean, default_solver, memory_bytes, out_to_loss
from benchmarks.workload import CNN, MLP, Workload, batches_of, checkpoint, prepare_all, task, truth
from engine.attribution.evaluation.lds import lds
from engine.attribution.trak.dual import solve
from engine.attribution.trak.kernel import Kernel, first_examples, make_kernel
from engine.attribution.trak.linear_system import example_weights
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.primal import gram, primal_projection, test_factors
from engine.attribution.trak.projection import features
from engine.attribution.trak.solver import Solver
from engine.store.spec import TrakSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

DAMPINGS = (0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0)
CHECKPOINTS = 5


def by_damping(
    solver: Solver, model: nn.Module, number: int, q: Tensor
) -> Iterator[tuple[float, Tensor]]:
    """(λ, scores `[n_test, n_train]`) of one checkpoint; features are computed once."""
    output = task().model_output
    train, test = batches_of("train"), batches_of("test")
    if solver.kind == "primal":
        projection = primal_projection(model, output, first_examples(train), solver, number)
        phi, phi_test = (
            torch.cat(list(features(model, output, batches(), projection)))
            for batches in (train, test)
        )
        matrix = gram([phi], solver, q)
        for damping in DAMPINGS:
            yield damping, test_factors(matrix, phi_test, damping) @ phi.T
    else:
        plan = plan_gradients(model, output, first_examples(train))
        kernel = make_kernel(model, output, train, test, plan, solver.width, number, memory_bytes())
        for damping in DAMPINGS:
            copy = Kernel(kernel.train.clone(), kernel.test.clone())
            yield damping, solve(copy, damping, example_weights(q, solver))


def table(workload: Workload, spec: TrakSpec) -> dict[str, dict[str, float]]:
    """`{λ: {1: lds, 5: lds}}` on the validation masks."""
    solver = default_solver(workload, spec)
    masks, margins = truth(workload, "validation")
    log(f"{workload.name}: {solver.kind}")
    means = {damping: Mean(solver.tempering) for damping in DAMPINGS}
    found: dict[str, dict[str, float]] = {f"{damping:g}": {} for damping in DAMPINGS}
    for number in range(CHECKPOINTS):
        model = checkpoint(workload, number)
        q = out_to_loss(model)
        for damping, scores in by_damping(solver, model, number, torch.from_numpy(q)):
            tau = means[damping].add(scores.numpy(), q)
            if number + 1 in (1, CHECKPOINTS):
                found[f"{damping:g}"][str(number + 1)] = round(lds(tau, masks, margins).mean, 4)
    return found


def measure() -> dict[str, Any]:
    """LDS by solver, workload and λ."""
    prepare_all()
    torch.set_num_threads(THREADS)
    return {
        solver: {workload.name: table(workload, spec) for workload in (CNN, MLP)}
        for solver, spec in {
            "dual": TrakSpec(),
            "primal": TrakSpec(solver="primal"),
        }.items()
    }


if __name__ == "__main__":
    report("damping", measure, __doc__ or "")
