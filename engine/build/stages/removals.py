"""Train the removal runs: models without the strongest supporters of several test examples.

They tell how much outputs change when examples are removed from all the data
(`engine.attribution.evaluation.effect_sizes`). Each is one shard in `removals/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import output_problem
from engine.build.models import versions
from engine.build.retraining import model_without
from engine.build.run import Run
from engine.build.stages.checkpoints import recipe_fingerprint
from engine.build.tasks import task_for
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.removal_runs import plan_removals, removal_seed, wanted_removals

CODE = 1
"""Increment when the same plan would give different outputs."""


@dataclass(frozen=True)
class Job:
    """Train one model without `removed`."""

    root: Path
    algorithm: str
    number: int
    removed: tuple[int, ...]
    targets: tuple[int, ...]
    device: str


def run(run: Run, algorithm: str) -> None:
    """Train an algorithm's missing removal runs.

    Runs whose removal is no longer the planned one, because rankings changed, are trained again.
    """
    study = run.study
    total = wanted_removals(study, algorithm)
    if not total:
        return
    jobs = []
    for number, plan in enumerate(plan_removals(study, algorithm)):
        removed, targets = tuple(plan.rows.tolist()), tuple(plan.targets.tolist())
        job = Job(study.root, algorithm, number, removed, targets, run.device)
        path = layout.removal_run_file(study.root, algorithm, number)
        if not path.exists() or store.tensors_fingerprint(path) != _fingerprint(study, job):
            jobs.append(job)
    run.run_remaining("removals", algorithm, train_removal, jobs, total)


def removals_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of all removal runs, for the stage that uses them."""
    files = [
        layout.removal_run_file(study.root, algorithm, number)
        for number in range(wanted_removals(study, algorithm))
    ]
    return store.fingerprint_of(
        "removals", CODE, [store.tensors_fingerprint(file) for file in files]
    )


def _fingerprint(study: StudyReader, job: Job) -> str:
    recipe = recipe_fingerprint(study, job.algorithm)
    seed = checkpoint_seed(study, removal_seed(study, job.algorithm, job.number))
    return store.fingerprint_of("removal run", CODE, recipe, seed, job.removed, job.targets)


def train_removal(job: Job) -> None:
    """Worker: train one model and write its outputs."""
    from engine.training.outputs import evaluate

    study = StudyReader.open(job.root)
    number = removal_seed(study, job.algorithm, job.number)
    output = np.empty(0, np.float32)
    if job.removed:
        model = model_without(study, job.algorithm, job.removed, number, job.device)
        task = task_for(study, model, checkpoint_seed(study, number))
        arrays = read_stacked_arrays(study, "test")
        output = evaluate(task, model, arrays, study.dataset.encoding, 512, job.device)["output"]
        if problem := output_problem(output):
            raise DataloupeError(
                f"Removal run {job.number} of {job.algorithm}: the model collapsed, {problem} on "
                "the test split. Try a lower learning_rate, or a longer warmup."
            )
    tensors: dict[str, np.ndarray] = {
        "removed": np.array(job.removed, np.int64),
        "targets": np.array(job.targets, np.int64),
        "output": output,
    }
    store.write_tensors(
        layout.removal_run_file(study.root, job.algorithm, job.number),
        tensors,
        _fingerprint(study, job),
        {"seed": checkpoint_seed(study, number), "device": job.device, **versions()},
    )
