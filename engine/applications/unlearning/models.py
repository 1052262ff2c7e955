"""Originals, oracles and unlearned models: one shard each, so an interrupted audit repeats none.

Originals are the study's checkpoints as far as there are so many; others are trained and keep their
weights. Oracles are trained without the forget set; of them only logits are kept. No oracle has the
seed of an original: they are other draws of the same learning algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.applications.unlearning.requests import rows_of
from engine.attribution.datamodels.run_bank import fault
from engine.build.models import load_checkpoint, untrained_model, versions
from engine.build.retraining import NOTHING, Removal, model_without, retrained_fingerprint
from engine.running import processes
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.examples import read_stacked_arrays
from engine.study.lock import locked
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    import torch

    from engine.applications.unlearning.settings import Cost, Hyper

CODE = 1
"""Raised whenever the same question would be answered by other models."""
FIRST_ORACLE = 1_000_000
"""Seed number of the first oracle."""


@dataclass(frozen=True)
class Said:
    """What N models say.

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        train: Logits `[N, k, classes]` float32 of those rows.
        test: Logits `[N, n_test, classes]` float32.
    """

    rows: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Logits `[N, len(rows), classes]` of some of the training rows."""
        found: np.ndarray = self.train[:, np.searchsorted(self.rows, rows)]
        return found


@dataclass(frozen=True)
class Training:
    """A job: train one original (nothing removed) or oracle."""

    root: Path
    algorithm: str
    asked: Removal
    removed: Removal
    seed: int
    device: str


@dataclass(frozen=True)
class Unlearning:
    """A job: unlearn `removed` from one original.

    Attributes:
        asked: The forget set of the question; `removed` is it, or its validation set.
        method: Its name.
        changes: File of what should change, predicted or real; None where none is needed.
        budget: In example-gradients.
    """

    root: Path
    algorithm: str
    asked: Removal
    removed: Removal
    method: str
    hyper: Hyper
    changes: Path | None
    budget: int
    seed: int
    device: str


def is_checkpoint(study: StudyReader, algorithm: str, seed: int) -> bool:
    """Whether this original is one of the study's own checkpoints."""
    return seed < study.checkpoints(algorithm) and (
        layout.checkpoint_file(study.root, algorithm, seed).exists()
    )


def original_file(study: StudyReader, algorithm: str, seed: int) -> Path:
    """Weights of an original."""
    if is_checkpoint(study, algorithm, seed):
        return layout.checkpoint_file(study.root, algorithm, seed)
    fingerprint = retrained_fingerprint(study, algorithm, NOTHING)
    return layout.original_file(study.root, algorithm, fingerprint, seed)


def original(study: StudyReader, algorithm: str, seed: int, device: str) -> torch.nn.Module:
    """A model with all data, in eval mode."""
    from engine.training.weights import load_weights

    if is_checkpoint(study, algorithm, seed):
        return load_checkpoint(study, algorithm, seed, device)
    model = untrained_model(study, study.spec.algorithms[algorithm], seed=0)
    load_weights(original_file(study, algorithm, seed), model)
    return model.to(device).eval()


def asked_about(study: StudyReader, asked: Removal, removed: Removal) -> np.ndarray:
    """Training rows that models without `removed` are asked about, ascending int64."""
    return np.union1d(rows_of(study, asked).all, np.array(removed, np.int64))


def oracles_fingerprint(
    study: StudyReader, algorithm: str, asked: Removal, removed: Removal
) -> str:
    """Fingerprint of the oracles without `removed`, and of the rows that they are asked about."""
    rows = asked_about(study, asked, removed).tolist()
    return store.fingerprint_of(
        "oracle", CODE, retrained_fingerprint(study, algorithm, removed), rows
    )


def oracle_file(
    study: StudyReader, algorithm: str, asked: Removal, removed: Removal, number: int
) -> Path:
    """What oracle `number`, from 0, says."""
    fingerprint = oracles_fingerprint(study, algorithm, asked, removed)
    return layout.oracle_file(study.root, algorithm, fingerprint, number)


def train_models(
    study: StudyReader,
    jobs: Sequence[Training],
    workers: int | None,
    on_done: Callable[[int, int], None],
) -> None:
    """Train those models that are not there."""
    _run(study, train, [(job, _trained_file(study, job)) for job in jobs], workers, on_done)


def originals(study: StudyReader, algorithm: str, count: int, device: str) -> list[Training]:
    """Jobs of the first originals."""
    return [
        Training(study.root, algorithm, NOTHING, NOTHING, seed, device) for seed in range(count)
    ]


def oracles(
    study: StudyReader, algorithm: str, asked: Removal, removed: Removal, count: int, device: str
) -> list[Training]:
    """Jobs of the first oracles."""
    return [
        Training(study.root, algorithm, asked, removed, number, device) for number in range(count)
    ]


def _trained_file(study: StudyReader, job: Training) -> Path:
    if job.removed:
        return oracle_file(study, job.algorithm, job.asked, job.removed, job.seed)
    return original_file(study, job.algorithm, job.seed)


def _run(
    study: StudyReader,
    work: Callable[[Any], None],
    jobs: Sequence[tuple[Any, Path]],
    workers: int | None,
    on_done: Callable[[int, int], None],
) -> None:
    missing = [job for job, path in jobs if not path.exists()]
    done = len(jobs) - len(missing)
    on_done(done, len(jobs))
    if not missing:
        return
    workers = processes.default_workers(missing[0].device) if workers is None else workers

    def count(job: Any, result: None) -> None:
        nonlocal done
        done += 1
        on_done(done, len(jobs))

    with locked(study):
        processes.run_jobs(work, missing, workers, count)


def train(job: Training) -> None:
    """Worker: train one model; keep its weights (original) or what it says (oracle)."""
    from engine.training.weights import save_weights

    study = StudyReader.open(job.root)
    seed = job.seed + (FIRST_ORACLE if job.removed else 0)
    model = model_without(study, job.algorithm, job.removed, seed, job.device)
    path = _trained_file(study, job)
    metadata = {"seed": checkpoint_seed(study, seed), "device": job.device, **versions()}
    if not job.removed:
        save_weights(path, model, path.parent.name, metadata)
        return
    said = say(study, model, asked_about(study, job.asked, job.removed), job.device)
    for split in ("train", "test"):
        if found := fault(said[split].ravel()):
            raise DataloupeError(
                f"Oracle {job.seed} of {job.algorithm}: the model collapsed, {found} on the "
                f"{split} split. Try another forget set, a lower learning_rate, or a longer warmup."
            )
    store.write_tensors(path, said, path.parent.name, metadata)


def say(
    study: StudyReader, model: torch.nn.Module, rows: np.ndarray, device: str, test: bool = True
) -> dict[str, np.ndarray]:
    """Logits of training rows (`train`, `[k, classes]`) and, if asked, of all test examples."""
    from engine.training.outputs import evaluate

    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    arrays = read_stacked_arrays(study, "train")
    some = {name: np.asarray(array[rows]) for name, array in arrays.items()}
    parts = {"train": some, **({"test": read_stacked_arrays(study, "test")} if test else {})}
    return {
        name: evaluate(task, model, part, encoding, 512, device)["logits"]
        for name, part in parts.items()
    }


def read_said(files: Sequence[Path], rows: np.ndarray) -> Said:
    """What several models say. Raises StoreError where one is missing or broken."""
    shards = [store.read_tensors(file, file.parent.name) for file in files]
    return Said(
        rows, *(np.stack([shard[split] for shard in shards]) for split in ("train", "test"))
    )


# --- unlearning ---------------------------------------------------------------------------------


def unlearned_fingerprint(study: StudyReader, job: Unlearning) -> str:
    """Fingerprint of the models that unlearned by one method."""
    return store.fingerprint_of(
        "unlearned",
        CODE,
        oracles_fingerprint(study, job.algorithm, job.asked, job.removed),
        [job.method, asdict(job.hyper), job.budget],
        None if job.changes is None else job.changes.stem,
    )


def unlearned_file(study: StudyReader, job: Unlearning) -> Path:
    """What a model that unlearned says."""
    return layout.unlearned_file(
        study.root, job.algorithm, unlearned_fingerprint(study, job), job.seed
    )


def unlearn_models(
    study: StudyReader,
    jobs: Sequence[Unlearning],
    workers: int | None,
    on_done: Callable[[int, int], None],
) -> None:
    """Do what is missing."""
    _run(
        study, keep_unlearned, [(job, unlearned_file(study, job)) for job in jobs], workers, on_done
    )


def keep_unlearned(job: Unlearning) -> None:
    """Worker: unlearn, and write what the model says then and what it cost."""
    study = StudyReader.open(job.root)
    model, cost = unlearn(study, job)
    path = unlearned_file(study, job)
    said = say(study, model, asked_about(study, job.asked, job.removed), job.device)
    said["cost"] = np.array([cost.gradients, cost.forwards], np.int64)
    store.write_tensors(path, said, path.parent.name, {"device": job.device, **versions()})


def unlearn(study: StudyReader, job: Unlearning) -> tuple[torch.nn.Module, Cost]:
    """(the model that unlearned, in eval mode, what it cost)."""
    import torch

    from engine.applications.unlearning.methods import METHODS, Asked, Examples
    from engine.training.outputs import read_batch

    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    arrays = read_stacked_arrays(study, "train")
    stored = {} if job.changes is None else store.read_tensors(job.changes, job.changes.stem)

    def examples(rows: np.ndarray, name: str) -> Examples:
        batch = read_batch(task, arrays, rows, encoding, job.device)
        change = stored.get(f"{name}_change")
        if change is None:
            return Examples(batch)
        return Examples(batch, torch.from_numpy(np.array(change)).to(job.device))

    model = original(study, job.algorithm, job.seed, job.device)
    asked = Asked(
        task,
        model,
        examples(np.array(job.removed, np.int64), "forget"),
        examples(rows_of(study, job.asked).learnt, "retain"),
        job.budget,
        checkpoint_seed(study, job.seed),
        job.hyper,
    )
    cost = METHODS[job.method](asked)
    return model.eval(), cost
