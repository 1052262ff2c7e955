"""Retrain without some training examples: the learning algorithm on all data but a removal set.

One model is one shard, named after the recipe, the removed rows and the seed, so that no change of
study.toml can mix what was trained before and after. Seed number s is that of checkpoint s: the
checkpoints themselves are the models that were trained with all data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import fault
from engine.build.models import initial_model, versions
from engine.build.stages.checkpoints import outputs_fingerprint, recipe_fingerprint
from engine.running import processes
from engine.store import layout
from engine.store.errors import DataloupeError, SpecError, UploadError
from engine.study.examples import read_stacked_arrays
from engine.study.lock import locked
from engine.study.models import checkpoint_seed
from engine.study.names import read_names, resolve_training_rows
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    import torch

CODE = 1
"""Raised whenever the same recipe and removal set would train other models."""

Removal = tuple[int, ...]
"""Training rows that are left out, ascending."""
NOTHING: Removal = ()


@dataclass(frozen=True)
class Retrained:
    """What one retrained model says of the test examples.

    Attributes:
        margin: Model outputs, margins of the true labels, float32 `[n_test]`.
        predicted: Numbers of the predicted classes, int32 `[n_test]`.
    """

    margin: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Job:
    """One model to train."""

    root: Path
    algorithm: str
    removed: Removal
    seed: int
    device: str


def removal_of(study: StudyReader, examples: Iterable[int | str]) -> Removal:
    """The training rows of rows or ids, ascending, each once.

    Raises:
        UnknownName: There is no such example.
        DataloupeError: None is given, or too little would be left: every class must keep an
            example.
    """
    rows = resolve_training_rows(study, examples)
    labels = read_names(study, "train")["label"].to_pandas().to_numpy()
    kept = np.ones(len(labels), dtype=bool)
    kept[rows] = False
    emptied = sorted(set(labels[~kept]) - set(labels[kept]))
    if emptied:
        raise DataloupeError(
            f"The removal set holds every training example of class {emptied[0]!r}, and a model "
            "cannot learn a class it never sees: leave one at least."
        )
    return tuple(rows.tolist())


def check_recipe(study: StudyReader, algorithm: str) -> None:
    """Refuse to retrain an algorithm that says only where its weights are.

    Raises:
        SpecError: Saying what to add. UploadError: It was uploaded, nobody said how it was made.
    """
    if algorithm in study.uploads:
        raise UploadError(
            f"{study.uploads[algorithm].name} was uploaded as finished checkpoints, so removal can "
            "be predicted but not verified by retraining: only algorithms of study.toml can be "
            "trained."
        )
    if not has_recipe(study, algorithm):
        raise SpecError(
            f"algorithms.{algorithm} has only `weights`, so removal can be predicted but not "
            "verified by retraining. Add the recipe that made them (epochs, batch_size, optimizer, "
            f"learning_rate, ...) under [algorithms.{algorithm}] in {layout.spec_file(study.root)}."
        )


def has_recipe(study: StudyReader, algorithm: str) -> bool:
    """Whether models of the algorithm can be trained, not only read."""
    spec = study.algorithms[algorithm]
    return not spec.weights or "epochs" in spec.model_fields_set


def retrain(
    study: StudyReader,
    algorithm: str,
    removals: Sequence[Removal],
    seeds: int,
    device: str = "auto",
    workers: int | None = None,
    on_done: Callable[[Removal, int, int], None] | None = None,
) -> None:
    """Train what is missing of the models without each of `removals`, seeds 0 to `seeds` − 1.

    The empty removal stands for models trained with all data, which the checkpoints are, as far as
    there are so many.

    Args:
        removals: From `removal_of`, or empty.
        workers: Worker processes; None: as many as the device can feed, 0: none, work here.
        on_done: Called with (removal, models done, models in all) at once, for the first removal,
            and after each model; what was there counts as done.

    Raises:
        SpecError: There is no recipe. DataloupeError: A training diverged or collapsed.
        StoreError: Another process writes to the study, or the disk is full.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    check_recipe(study, algorithm)
    wanted = [(removed, seed) for removed in dict.fromkeys(removals) for seed in range(seeds)]
    missing = [one for one in wanted if not is_trained(study, algorithm, *one)]
    done = len(wanted) - len(missing)
    report = on_done or (lambda removed, done, total: None)
    if wanted:
        report(wanted[0][0], done, len(wanted))
    if not missing:
        return
    device = processes.pick_device(device)
    workers = processes.default_workers(device) if workers is None else workers

    def count(job: Job, result: None) -> None:
        nonlocal done
        done += 1
        report(job.removed, done, len(wanted))

    jobs = [Job(study.root, algorithm, removed, seed, device) for removed, seed in missing]
    with locked(study):
        processes.run_jobs(train_without, jobs, workers, count)


def is_trained(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> bool:
    """Whether a model's answers are there."""
    return (
        _is_checkpoint(study, algorithm, removed, seed)
        or _file(study, algorithm, removed, seed).exists()
    )


def retrained(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> Retrained:
    """What a model says; `removed` is empty for one that was trained with all data.

    Raises:
        StoreError: It is not trained yet, or its shard is broken.
    """
    if _is_checkpoint(study, algorithm, removed, seed):
        path = layout.outputs_file(study.root, algorithm, seed, "test")
        outputs = store.read_tensors(path, outputs_fingerprint(study, algorithm, seed))
        predicted = outputs["logits"].argmax(axis=1).astype(np.int32)
        return Retrained(outputs["output"], predicted)
    path = _file(study, algorithm, removed, seed)
    shard = store.read_tensors(path, retrained_fingerprint(study, algorithm, removed))
    return Retrained(shard["margin"], shard["predicted"])


def retrained_fingerprint(study: StudyReader, algorithm: str, removed: Removal) -> str:
    """Fingerprint of the models without `removed`: data, recipe, and who is left out."""
    recipe = recipe_fingerprint(study, algorithm)
    return store.fingerprint_of("retrained", CODE, recipe, study.spec.seed, list(removed))


def _file(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> Path:
    fingerprint = retrained_fingerprint(study, algorithm, removed)
    return layout.retrained_file(study.root, algorithm, fingerprint, seed)


def _is_checkpoint(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> bool:
    """Whether the model is one of the study's own checkpoints."""
    spec = study.spec.algorithms[algorithm]
    if removed or spec.weights or seed >= spec.checkpoints:
        return False
    return layout.outputs_file(study.root, algorithm, seed, "test").exists()


def train_without(job: Job) -> None:
    """Worker: train one model and write what it says of the test examples."""
    from engine.training.outputs import evaluate

    study = StudyReader.open(job.root)
    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    model = model_without(study, job.algorithm, job.removed, job.seed, job.device)
    outputs = evaluate(task, model, read_stacked_arrays(study, "test"), encoding, 512, job.device)
    if found := fault(outputs["output"]):
        raise DataloupeError(
            f"{_name(job.algorithm, job.removed, job.seed)}: the model collapsed, {found} on the "
            "test split. Try another removal set, a lower learning_rate, or a longer warmup."
        )
    store.write_tensors(
        _file(study, job.algorithm, job.removed, job.seed),
        {
            "margin": outputs["output"],
            "predicted": outputs["logits"].argmax(axis=1).astype(np.int32),
            "removed": np.array(job.removed, np.int32),
        },
        retrained_fingerprint(study, job.algorithm, job.removed),
        {"seed": checkpoint_seed(study, job.seed), "device": job.device, **versions()},
    )


def model_without(
    study: StudyReader, algorithm: str, removed: Removal, seed: int, device: str
) -> torch.nn.Module:
    """Train model number `seed` on all data but `removed`; in eval mode.

    Raises:
        DataloupeError: Training diverged.
    """
    from engine.training.trainer import train

    spec, number = study.spec.algorithms[algorithm], checkpoint_seed(study, seed)
    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    kept = np.setdiff1d(np.arange(study.dataset.n_train), removed)
    model = initial_model(study, spec, number)
    arrays, subset = read_stacked_arrays(study, "train"), kept if removed else None
    try:
        return train(task, model, arrays, encoding, spec, number, device, subset)
    except DataloupeError as error:
        raise DataloupeError(f"{_name(algorithm, removed, seed)}: {error}") from error


def _name(algorithm: str, removed: Removal, seed: int) -> str:
    return f"Model {seed} of {algorithm} without {len(removed):,} training examples"
