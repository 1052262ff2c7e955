"""Choose TRAK's `auto` settings by their LDS on the run bank's validation runs.

The stage tries settings with the first checkpoint only. It writes the best, and all trials, to
`tuning/tuning.json`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import store
from engine.build.batches import batches_of, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.run import Run
from engine.build.solver import memory_per_worker, plan_solver
from engine.build.stages.bank import bank_fingerprint
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.build.tasks import attributed_task, samples_of
from engine.store import layout
from engine.store.layout import TRAK
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.run_banks import is_tuned, read_bank

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.attribution.trak.solver import Solver
    from engine.attribution.trak.tuning import Attribute

CODE = 2
"""Increment when the same runs would choose other settings."""


@dataclass(frozen=True)
class Job:
    """Choose one algorithm's settings."""

    root: Path
    algorithm: str
    device: str
    memory_bytes: int


def run(run: Run, algorithm: str) -> None:
    """Choose the settings, unless they were chosen on the current bank."""
    study = run.study
    if not is_tuned(study, algorithm):
        return
    path = layout.tuning_file(study.root, algorithm)
    done = path.exists() and store.read_json(path)["bank"] == bank_fingerprint(study, algorithm)
    if done:
        store.read_json(path, tuning_fingerprint(study, algorithm))
    jobs = [] if done else [Job(study.root, algorithm, run.device, memory_per_worker(run))]
    run.run_remaining("tuning", algorithm, choose_settings, jobs, total=1)


def tuning_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the chosen settings: first checkpoint, spec and bank."""
    spec = {name: value for name, value in study.spec.trak.chosen.items() if name != "storage"}
    first = outputs_fingerprint(study, algorithm, 0)
    return store.fingerprint_of("tuning", CODE, spec, first, bank_fingerprint(study, algorithm))


def choose_settings(job: Job) -> None:
    """Worker: try all settings, then write the best and the trials."""
    import torch

    from engine.attribution.trak.tuning import (
        DAMPINGS,
        OF_SAMPLED,
        SOFT_THRESHOLDS,
        TEMPERINGS,
        tune,
    )

    study = StudyReader.open(job.root)
    model = load_checkpoint(study, job.algorithm, 0, job.device)
    solver = plan_solver(study, job.algorithm, job.memory_bytes)
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, 0)).to(job.device)
    validation = read_bank(study, job.algorithm, train=False).part("validation")
    attribute = _by_features if solver.kind == "primal" else _by_kernel
    tunable = study.spec.trak.tunable
    dampings = OF_SAMPLED if solver.samples else DAMPINGS
    tuned = tune(
        attribute(study, job, model, solver, q),
        solver,
        q,
        validation.masks,
        validation.test,
        temperings=TEMPERINGS if "tempering" in tunable else (),
        dampings=dampings if "damping" in tunable else (),
        soft_thresholds=SOFT_THRESHOLDS if "soft_threshold" in tunable else (),
    )
    content: dict[str, Any] = {
        "settings": {name: getattr(tuned.solver, name) for name in tunable},
        "bank": bank_fingerprint(study, job.algorithm),
        "masks": len(validation),
        "trials": [asdict(trial) for trial in tuned.trials],
        "optimism": tuned.optimism,
    }
    _remove_stale_scores(study, job.algorithm, content["settings"])
    fingerprint = tuning_fingerprint(study, job.algorithm)
    store.write_json(layout.tuning_file(study.root, job.algorithm), content, fingerprint)


def _remove_stale_scores(study: StudyReader, algorithm: str, settings: dict[str, float]) -> None:
    """Remove scores that used other settings, which were chosen on a smaller bank."""
    path = layout.solver_file(study.root, algorithm)
    if path.exists():
        solver = store.read_json(path)
        if any(solver[name] != value for name, value in settings.items()):
            for folder in layout.stage_folders(study.root, "trak", algorithm):
                shutil.rmtree(folder)
            shutil.rmtree(layout.search_folder(study.root, algorithm, TRAK), ignore_errors=True)


def _by_kernel(
    study: StudyReader, job: Job, model: nn.Module, solver: Solver, out_to_loss: torch.Tensor
) -> Attribute:
    from engine.attribution.trak.kernel import first_examples, make_kernel
    from engine.attribution.trak.make_plan import plan_gradients
    from engine.attribution.trak.tuning import attribute_by_kernel

    task = attributed_task(study, job.algorithm, 0)
    output = task.trained_output
    size = study.spec.trak.batch_size
    train, test = (batches_of(study, split, job.device, size) for split in ("train", "test"))
    plan = plan_gradients(model, output, first_examples(train))
    seed = checkpoint_seed(study, 0)
    width, memory, of_test = solver.width, job.memory_bytes, task.model_output
    kernel = make_kernel(model, output, train, test, plan, width, seed, memory, of_test)
    return attribute_by_kernel(kernel, out_to_loss)


def _by_features(
    study: StudyReader, job: Job, model: nn.Module, solver: Solver, out_to_loss: torch.Tensor
) -> Attribute:

    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.primal import features_of, primal_projection
    from engine.attribution.trak.tuning import attribute_by_features

    task = attributed_task(study, job.algorithm, 0)
    outputs = task.trained_output, task.model_output
    size = study.spec.trak.batch_size
    splits = [batches_of(study, split, job.device, size) for split in ("train", "test")]
    first = first_examples(splits[0])
    projection = primal_projection(model, outputs[0], first, solver, checkpoint_seed(study, 0))
    train, test = (
        features_of(model, [output], split, projection)
        for output, split in zip(outputs, splits, strict=True)
    )
    sampled = samples_of(task, solver)
    curvature = features_of(model, sampled, splits[0], projection) if sampled else None
    return attribute_by_features(train, test, out_to_loss, curvature)
