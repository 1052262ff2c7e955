"""Choose TRAK's solver by the study's size and memory, with the settings tuned for it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from engine import store
from engine.attribution.trak.solver import Solver
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.run import Run
from engine.build.tasks import attributed_task
from engine.store import layout
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader
from engine.study.run_banks import is_tuned

AUTO_MEMORY_BYTES = 4 * 2**30
"""Value of `trak.memory_gib = "auto"`, the same on every machine. Memory determines the solver and
its rounding, and one spec must give the same bytes everywhere."""


def tuned_settings(study: StudyReader, algorithm: str) -> dict[str, Any]:
    """Solver settings chosen on the validation runs; empty if none were chosen.

    An upload has no run bank, so it uses the settings of the study's first algorithm. That also
    makes the two comparable.
    """
    if algorithm in study.uploads:
        algorithm = resolve_algorithm(study)
    if not is_tuned(study, algorithm):
        return {}
    return dict(store.read_json(layout.tuning_file(study.root, algorithm))["settings"])


def plan_solver(study: StudyReader, algorithm: str, memory_bytes: int) -> Solver:
    """Choose the solver for the study's size and memory, with settings of study.toml or defaults.

    Args:
        memory_bytes: Memory that one job may use.
    """
    from engine.attribution.trak.choose_solver import choose_solver, with_sampled_curvature

    model = load_checkpoint(study, algorithm, 0, "cpu")
    batch = next(batches_of(study, "train", "cpu", 8)())
    n_train, n_test = study.dataset.n_train, study.dataset.n_test
    task, spec = attributed_task(study, algorithm, 0), study.spec.trak
    asked = spec.curvature == "gauss-newton" and not spec.solver.startswith("dual")
    sampled = asked and task.outputs[0].sample is not None
    if sampled:
        spec = spec.model_copy(update={"solver": "primal"})
    solver = choose_solver(model, task.trained_output, batch, n_train, n_test, spec, memory_bytes)
    if sampled:
        return with_sampled_curvature(solver, spec, n_train)
    if task.outputs[0].curvature != "constant":
        return solver
    # Then every example has the same weight in the Gram matrix, and Q as it is gives the influence
    # of a linear model exactly.
    tempering = 1.0 if spec.tempering == "auto" else spec.tempering
    return replace(solver, curvature="plain", tempering=tempering)


def memory_per_worker(run: Run) -> int:
    """Memory that one job may use, in bytes.

    Neither the machine nor the number of workers changes it; see `AUTO_MEMORY_BYTES`.
    """
    gib = run.study.spec.trak.memory_gib
    return AUTO_MEMORY_BYTES if gib == "auto" else int(gib * 2**30)


def limit_workers(run: Run, solver: Solver) -> Run:
    """The same run, with no more workers than fit together in half of the machine's memory.

    This changes the duration of the stage, but not its results.
    """
    n_train, n = run.study.dataset.n_train, run.study.dataset.n_train + run.study.dataset.n_test
    if solver.kind == "primal":
        needed = 12 * solver.proj_dim**2
    else:
        needed = min(memory_per_worker(run), 8 * n_train * n + 4 * n * solver.width)
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return replace(run, workers=min(run.workers, max(1, half // max(1, needed))))
