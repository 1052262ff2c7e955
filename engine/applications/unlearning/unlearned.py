"""Models that unlearned: one shard each, so an interrupted audit continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.applications.unlearning.oracles import oracles_fingerprint, rows_for
from engine.applications.unlearning.outputs import outputs_of_model
from engine.applications.unlearning.rows import rows_of
from engine.applications.unlearning.settings import Cost, Hyper
from engine.build.models import untrained_model, versions
from engine.build.retraining import Removal, made_by, weights_file
from engine.build.tasks import task_to_compare
from engine.running import processes
from engine.store import layout
from engine.study.examples import read_stacked_arrays
from engine.study.lock import locked
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch

CODE = 3
"""Increment when the same job would give a different model or a different file."""


@dataclass(frozen=True)
class Unlearning:
    """A job: unlearn `removed` from one original.

    Attributes:
        forget: The forget set of the audit.
        removed: The examples that are unlearned: the forget set, or its validation set.
        method: Name of the method.
        changes: File with the changes of the outputs that the method learns, predicted or actual;
            None if it needs none.
        budget: Budget in example-gradients.
        seed: Seed of the original.
    """

    root: Path
    algorithm: str
    forget: Removal
    removed: Removal
    method: str
    hyper: Hyper
    changes: Path | None
    budget: int
    seed: int
    device: str


def unlearned_fingerprint(study: StudyReader, job: Unlearning) -> str:
    """Fingerprint of the models that unlearned by one method."""
    return store.fingerprint_of(
        "unlearned",
        CODE,
        oracles_fingerprint(study, job.algorithm, job.forget, job.removed),
        [job.method, asdict(job.hyper), job.budget],
        None if job.changes is None else job.changes.stem,
    )


def unlearned_file(study: StudyReader, job: Unlearning) -> Path:
    """Shard of a model that unlearned: its outputs, its `cost`, and what it makes, if models do."""
    return layout.unlearned_file(
        study.root, job.algorithm, unlearned_fingerprint(study, job), job.seed
    )


def unlearn_models(
    study: StudyReader,
    jobs: Sequence[Unlearning],
    workers: int | None,
    on_done: Callable[[int, int], None],
) -> None:
    """Run the jobs whose models are missing."""
    missing = [job for job in jobs if not unlearned_file(study, job).exists()]
    done = len(jobs) - len(missing)
    on_done(done, len(jobs))
    if not missing:
        return
    workers = processes.default_workers(missing[0].device) if workers is None else workers

    def count(job: Unlearning, result: None) -> None:
        nonlocal done
        done += 1
        on_done(done, len(jobs))

    with locked(study):
        processes.run_jobs(keep_unlearned, missing, workers, count)


def keep_unlearned(job: Unlearning) -> None:
    """Worker: unlearn, and keep the model's outputs and cost."""
    study = StudyReader.open(job.root)
    model, cost = unlearn(study, job)
    path = unlearned_file(study, job)
    tensors = outputs_of_model(study, model, rows_for(study, job.forget, job.removed), job.device)
    tensors |= made_by(study, job.algorithm, model, job.device)
    tensors["cost"] = np.array([cost.gradients, cost.forwards], np.int64)
    store.write_tensors(path, tensors, path.parent.name, {"device": job.device, **versions()})


def unlearn(study: StudyReader, job: Unlearning) -> tuple[torch.nn.Module, Cost]:
    """(the model that unlearned, in eval mode; its cost)."""
    import torch

    from engine.applications.unlearning.methods import METHODS, Examples, Setup
    from engine.training.outputs import read_batch

    model, encoding = original(study, job.algorithm, job.seed, job.device), study.dataset.encoding
    task, seed = task_to_compare(study, model), checkpoint_seed(study, job.seed)
    arrays = read_stacked_arrays(study, "train")
    changes = {} if job.changes is None else store.read_tensors(job.changes, job.changes.stem)

    def examples(rows: np.ndarray, name: str) -> Examples:
        batch = read_batch(task, arrays, rows, encoding, job.device)
        change = changes.get(f"{name}_change")
        if change is None:
            return Examples(batch)
        return Examples(batch, torch.from_numpy(np.array(change)).to(job.device))

    setup = Setup(
        task,
        model,
        examples(np.array(job.removed, np.int64), "forget"),
        examples(rows_of(study, job.forget).learned, "retain"),
        job.budget,
        seed,
        job.hyper,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # losses may draw, such as noise
        cost = METHODS[job.method](setup)
    return model.eval(), cost


def original(study: StudyReader, algorithm: str, seed: int, device: str) -> torch.nn.Module:
    """A model trained with all data, in eval mode."""
    from engine.training.weights import load_weights

    model = untrained_model(study, study.algorithms[algorithm], seed=0)
    load_weights(weights_file(study, algorithm, seed), model)
    return model.to(device).eval()
