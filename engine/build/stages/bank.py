"""Train the run bank: models on random subsets of the training set, and their outputs.

Each run is one shard in `bank/`, with its mask and its outputs on both splits, and on request all
logits and the weights. The numbers of masks and seeds are not part of a run's fingerprint, so a
bank that grows keeps its existing runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import draw_mask, output_problem, pack
from engine.build.models import initial_model, versions
from engine.build.run import Run
from engine.build.stages.checkpoints import recipe_fingerprint
from engine.build.tasks import task_for, task_of, task_to_compare
from engine.store import layout
from engine.store.errors import DataloupeError, SpecError, StaleError, StoreError
from engine.store.layout import SPLITS
from engine.store.records import Progress
from engine.study.examples import read_stacked_arrays
from engine.study.left_out import trained_on
from engine.study.reader import StudyReader
from engine.study.run_banks import finished_runs, read_bank_import, run_seed, wanted_runs
from engine.tasks import NOISY

CODE = 2
"""Increment when the same spec would draw different masks or record different outputs."""


@dataclass(frozen=True)
class Job:
    """Train one subset run."""

    root: Path
    algorithm: str
    mask: int
    seed: int
    device: str


def check_recipe(study: StudyReader, algorithm: str) -> None:
    """Check that the algorithm has the training recipe that a run bank needs.

    Raises:
        SpecError: The algorithm has only `weights`, and no bank was imported for it.
    """
    spec = study.spec.algorithms[algorithm]
    if layout.bank_import_file(study.root, algorithm).exists():
        return
    if wanted_runs(study) and spec.weights and "epochs" not in spec.model_fields_set:
        raise SpecError(
            f"[subset_runs] trains models, but algorithms.{algorithm} has only `weights`. Add the "
            "recipe that trained them (epochs, batch_size, optimizer, learning_rate, ...), import "
            "a bank (`dataloupe import bank`), or set subset_runs.masks = 0."
        )


def run(run: Run, algorithm: str) -> None:
    """Train an algorithm's missing subset runs, unless its bank was imported.

    Raises:
        StoreError: The imported bank was made for a different dataset.
    """
    study = run.study
    if about := read_bank_import(study, algorithm):
        if about.dataset != study.dataset.fingerprint:
            raise StoreError(
                f"The imported run bank of {algorithm} was made for different data than "
                f"{study.root} has now. Import it again with --replace, or remove "
                f"{layout.bank_import_file(study.root, algorithm).parent}."
            )
        run.report(Progress("bank", algorithm, 1, 1))
        return
    wanted, there = wanted_runs(study), finished_runs(study, algorithm)
    if not wanted:
        return
    _check(study, algorithm, sorted(there))
    jobs = [Job(study.root, algorithm, *one, run.device) for one in wanted if one not in there]
    run.run_remaining("bank", algorithm, train_run, jobs, len(wanted))


def _check(study: StudyReader, algorithm: str, runs: Sequence[tuple[int, int]]) -> None:
    """Raise one StaleError for all stale runs: there may be thousands to remove."""
    stale = []
    for mask, seed in runs:
        path = layout.run_file(study.root, algorithm, mask, seed)
        try:
            store.read_tensors(path, run_fingerprint(study, algorithm, mask, seed))
        except StaleError as error:
            stale.append(error)
    if stale:
        raise StaleError(str(stale[0]), *(path for error in stale for path in error.paths))


def run_fingerprint(study: StudyReader, algorithm: str, mask: int, seed: int) -> str:
    """Fingerprint of one subset run: data, recipe, mask and seed."""
    runs = study.spec.subset_runs
    return store.fingerprint_of(
        "subset run",
        CODE,
        recipe_fingerprint(study, algorithm),
        [study.spec.seed, mask, runs.alpha],
        run_seed(study, mask, seed),
        [runs.logits, runs.weights],
        *(["one noise"] if study.spec.task.name in NOISY else []),
    )


def bank_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the bank, for the stages that use it.

    The further runs of test masks are not part of it: nothing is fitted to them, so what was fitted
    stays when they are added.
    """
    if about := read_bank_import(study, algorithm):
        return about.fingerprint
    spec = study.spec.subset_runs
    runs = [
        run_fingerprint(study, algorithm, mask, seed)
        for mask in range(spec.masks)
        for seed in range(spec.seeds)
    ]
    return store.fingerprint_of("bank", CODE, runs)


def train_run(job: Job) -> None:
    """Worker: train one subset run and write its shard."""
    from engine.training.outputs import evaluate
    from engine.training.trainer import train
    from engine.training.weights import as_arrays

    study = StudyReader.open(job.root)
    spec, runs = study.spec.algorithms[job.algorithm], study.spec.subset_runs
    task, encoding = task_of(study), study.dataset.encoding
    arrays = {split: read_stacked_arrays(study, split) for split in SPLITS}
    name = f"Subset run {job.mask:05d}-{job.seed} of {job.algorithm}"
    mask = draw_mask(study.spec.seed, job.mask, study.dataset.n_train, runs.alpha)
    seed = run_seed(study, job.mask, job.seed)
    subset = trained_on(study, job.algorithm, np.flatnonzero(~mask))
    model = initial_model(study, spec, seed)
    try:
        model = train(task, model, arrays["train"], encoding, spec, seed, job.device, subset)
    except DataloupeError as error:
        raise DataloupeError(f"{name}: {error}") from error
    shard = {"mask": pack(mask)}
    same = study.spec.task.name in NOISY
    task = task_to_compare(study, model) if same else task_for(study, model, seed)
    for split in SPLITS:
        outputs = evaluate(task, model, arrays[split], encoding, 512, job.device)
        if found := output_problem(outputs["output"]):
            raise DataloupeError(
                f"{name}: the model collapsed, {found} on the {split} split. Try a lower "
                "learning_rate, or a longer warmup."
            )
        shard[split] = outputs["output"]
        if runs.logits:
            shard[f"{split}_logits"] = outputs["logits"]
    if runs.weights:
        shard |= {f"weights.{key}": array for key, array in as_arrays(model).items()}
    store.write_tensors(
        layout.run_file(study.root, job.algorithm, job.mask, job.seed),
        shard,
        run_fingerprint(study, job.algorithm, job.mask, job.seed),
        {"seed": seed, "device": job.device, **versions()},
    )
