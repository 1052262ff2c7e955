"""Which solver TRAK takes, chosen by size and memory, and the one that the store holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from engine import store
from engine.attribution.trak.solver import Solver
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.run import Run
from engine.store import layout
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader
from engine.study.run_banks import is_tuned
from engine.tasks import load_task

if TYPE_CHECKING:
    pass


def tuned_settings(study: StudyReader, algorithm: str) -> dict[str, Any]:
    """Settings of the solver that validation runs decided. An upload has no runs of its own, and is
    to be compared: it takes those of the study's first algorithm."""
    if algorithm in study.uploads:
        algorithm = resolve_algorithm(study)
    if not is_tuned(study, algorithm):
        return {}
    return dict(store.read_json(layout.tuning_file(study.root, algorithm))["settings"])


def plan_solver(study: StudyReader, algorithm: str, memory_bytes: int) -> Solver:
    """The solver that fits best, with the settings of study.toml or the defaults."""
    from engine.attribution.trak.attribute import choose_solver

    model = load_checkpoint(study, algorithm, 0, "cpu")
    batch = next(batches_of(study, "train", "cpu", 8)())
    n_train, n_test = study.dataset.n_train, study.dataset.n_test
    task, spec = load_task(study.dataset.task), study.spec.trak
    return choose_solver(model, task.model_output, batch, n_train, n_test, spec, memory_bytes)


def memory_per_worker(run: Run) -> int:
    """Bytes that one job may take. `auto` is half of the machine's memory, not of what is free
    just now, so that two builds of one spec on one machine take the same solver."""
    gib = run.study.spec.trak.memory_gib
    if gib == "auto":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    else:
        total = int(gib * 2**30)
    return total // max(1, run.workers)
