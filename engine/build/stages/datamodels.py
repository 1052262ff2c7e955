"""Fit datamodels of every test output to the run bank: a lasso, and a hybrid with TRAK as prior.

Scores, fit diagnostics and prediction intervals go to `methods/datamodel/` and `methods/hybrid/`;
on request, lasso datamodels of the training examples' outputs go to `methods/datamodel/training/`.

Hyperparameters are chosen on the validation runs after fitting to the fit runs; the final fit uses
both. Test runs are never used.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import RunBank
from engine.build.method_files import write_method
from engine.build.run import Run
from engine.build.stages import search
from engine.build.stages.bank import bank_fingerprint
from engine.build.stages.trak import scores_fingerprint
from engine.store import layout
from engine.store.errors import DataError
from engine.store.layout import DATAMODEL, HYBRID, ROWS_PER_SHARD, TRAK
from engine.store.rows import evenly_spread
from engine.store.text import counted
from engine.study.examples import shard_count
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank
from engine.study.score_matrices import read_score_matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CODE = 3
"""Increment when the same runs would give other weights."""

MOST_TARGETS = 128
"""Number of test examples to choose hyperparameters on, and to choose between methods by, evenly
spread."""
MOST_FOR_UNITS = 1024
"""Number of test examples to fit the scale of TRAK's scores on, evenly spread."""


@dataclass(frozen=True)
class Job:
    """Fit one kind of datamodel."""

    root: Path
    algorithm: str
    method: str
    device: str


def run(run: Run, algorithm: str) -> None:
    """Fit missing datamodels, and refit those whose run bank or TRAK prior has changed."""
    study = run.study
    jobs = []
    for method in _FITS:
        path = layout.method_file(study.root, algorithm, method)
        fingerprint = datamodel_fingerprint(study, algorithm, method)
        is_current = path.exists() and store.json_fingerprint(path) == fingerprint
        if is_current and all(file.exists() for file in _files_of(study, algorithm, method)):
            continue
        if path.exists():
            for folder in (layout.search_folder, layout.method_folder):
                shutil.rmtree(folder(study.root, algorithm, method), ignore_errors=True)
        jobs.append(Job(study.root, algorithm, method, run.device))
    wanted = len(_FITS) + int(study.spec.subset_runs.training_targets)
    run.run_remaining("datamodels", algorithm, fit, jobs, wanted)
    if study.spec.subset_runs.training_targets:
        fingerprint = datamodel_fingerprint(study, algorithm, DATAMODEL)
        paths = [
            layout.training_datamodels_file(study.root, algorithm, n)
            for n in range(shard_count(study, "train"))
        ]
        done = all(store.is_there(path, fingerprint) for path in paths)
        job = Job(study.root, algorithm, DATAMODEL, run.device)
        run.run_remaining("datamodels", algorithm, fit_training, [] if done else [job], wanted)
    search.run(run, algorithm)


def _files_of(study: StudyReader, algorithm: str, method: str) -> list[Path]:
    """The files of a method's scores, and of its fit diagnostics or intervals."""
    extra_file = layout.fit_file if method == DATAMODEL else layout.intervals_file
    by_shard = [
        file(study.root, algorithm, method, shard)
        for file in (layout.method_scores_file, extra_file)
        for shard in range(shard_count(study, "test"))
    ]
    return [*by_shard, layout.validation_file(study.root, algorithm, method)]


def datamodel_fingerprint(study: StudyReader, algorithm: str, method: str) -> str:
    """Fingerprint of one kind of datamodel: the run bank, and TRAK's scores for the hybrid."""
    trak = scores_fingerprint(study, algorithm) if method == HYBRID else None
    return store.fingerprint_of(method, CODE, bank_fingerprint(study, algorithm), trak)


def fit(job: Job) -> None:
    """Worker: fit one kind of datamodel to all test examples."""
    study = StudyReader.open(job.root)
    _FITS[job.method](study, job, read_bank(study, job.algorithm, train=False))


def fit_training(job: Job) -> None:
    """Worker: fit the missing datamodels of training examples."""
    from engine.attribution.datamodels.fit import DIAGNOSTICS, fit_datamodels

    study = StudyReader.open(job.root)
    fingerprint = datamodel_fingerprint(study, job.algorithm, DATAMODEL)
    bank = read_bank(study, job.algorithm)
    if bank.train is None:
        raise DataError(
            "subset_runs.training_targets requests datamodels of training examples, but the "
            f"imported run bank of {job.algorithm} has no outputs on them. Import a bank that has "
            "them, or remove training_targets."
        )
    both = bank.part("fit", "validation")
    outputs = cast(np.ndarray, both.train)
    for shard in range(shard_count(study, "train")):
        path = layout.training_datamodels_file(study.root, job.algorithm, shard)
        if store.is_there(path, fingerprint):
            continue
        targets = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        found = fit_datamodels(both.masks, outputs[:, targets], both.held_out, device=job.device)
        names = ("indptr", "indices", "values", "bias", *DIAGNOSTICS)
        store.write_tensors(path, {name: getattr(found, name) for name in names}, fingerprint)


def _fit_lasso(study: StudyReader, job: Job, bank: RunBank) -> None:
    from engine.attribution.datamodels.fit import DIAGNOSTICS, fit_datamodels

    fingerprint = datamodel_fingerprint(study, job.algorithm, DATAMODEL)
    both = bank.part("fit", "validation")
    fits = [
        layout.fit_file(study.root, job.algorithm, DATAMODEL, n)
        for n in range(shard_count(study, "test"))
    ]

    def rows(tests: slice) -> csr_array:
        found = fit_datamodels(both.masks, both.test[:, tests], both.held_out, device=job.device)
        arrays = {name: getattr(found, name) for name in ("bias", "cross_fitted", *DIAGNOSTICS)}
        store.write_tensors(fits[tests.start // ROWS_PER_SHARD], arrays, fingerprint)
        return found.weights

    def details() -> dict[str, Any]:
        predicted = np.concatenate([store.read_tensors(path)["cross_fitted"] for path in fits])
        targets = evenly_spread(len(predicted), MOST_TARGETS)
        _write_validation(study, job, predicted[targets], fingerprint)
        return {"settings": f"{counted(int(both.seeds.sum()), 'run')}, lasso, λ per prediction"}

    badge = {
        "method": "Datamodel",
        "reason": "A sparse linear map from the training set to the output, fitted to subset runs "
        f"only. A score is a change of the {study.dataset.output}.",
        "runs": int(both.seeds.sum()),
    }
    write_method(study, job.algorithm, DATAMODEL, rows, badge, fingerprint, details)


def _fit_hybrid(study: StudyReader, job: Job, bank: RunBank) -> None:
    import torch

    from engine.attribution.datamodels import hybrid

    fingerprint = datamodel_fingerprint(study, job.algorithm, HYBRID)
    trak = read_score_matrix(study, job.algorithm, TRAK)
    targets, unit_targets = (
        evenly_spread(trak.n_test, most) for most in (MOST_TARGETS, MOST_FOR_UNITS)
    )

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(job.device)

    fitted, validation = bank.part("fit"), bank.part("validation")
    choice = hybrid.choose(
        on_device(trak.rows(targets)),
        on_device(fitted.masks),
        on_device(fitted.test[:, targets]),
        on_device(validation.masks),
        on_device(validation.test[:, targets]),
    )
    settings = choice.settings
    _write_validation(study, job, choice.cross_fitted, fingerprint)
    both = bank.part("fit", "validation")
    masks, test_masks = on_device(both.masks), on_device(bank.part("test").masks)
    units = hybrid.output_units(
        on_device(trak.rows(unit_targets)),
        masks,
        on_device(both.test[:, unit_targets]),
        settings.ridge,
    )

    def rows(tests: slice) -> np.ndarray:
        numbers = np.arange(tests.start, tests.stop)
        tau, outputs = on_device(trak.rows(numbers)) * units, on_device(both.test[:, tests])
        found = hybrid.fit(tau, masks, outputs, settings, test_masks)
        path = layout.intervals_file(
            study.root, job.algorithm, HYBRID, tests.start // ROWS_PER_SHARD
        )
        intervals = {"predicted": found.predicted, "deviation": found.deviation}
        arrays = {name: tensor.cpu().numpy() for name, tensor in intervals.items()}
        store.write_tensors(path, arrays, fingerprint)
        weights: np.ndarray = found.weights.cpu().numpy()
        return weights

    checkpoints = study.checkpoints(job.algorithm)
    write_method(
        study,
        job.algorithm,
        HYBRID,
        rows,
        {
            "method": "Datamodel + TRAK",
            "reason": "A datamodel fitted to subset runs, with TRAK as its prior. "
            f"A score is a change of the {study.dataset.output}.",
            "checkpoints": checkpoints,
            "runs": int(both.seeds.sum()),
        },
        fingerprint,
        lambda: {
            "settings": f"{counted(int(both.seeds.sum()), 'run')}, "
            f"{counted(checkpoints, 'checkpoint')}, "
            f"ridge {settings.ridge:g}, κ {settings.flat:g}, σ² {settings.noise:g}",
            "ridge": settings.ridge,
            "flat": settings.flat,
            "noise": settings.noise,
            "width": settings.width,
            "trials": [{**asdict(trial.settings), "lds": trial.lds} for trial in choice.trials],
        },
    )


def _write_validation(
    study: StudyReader, job: Job, predicted: np.ndarray, fingerprint: str
) -> None:
    """Keep the cross-fitted predictions `[targets, validation runs]` that methods are chosen by."""
    path = layout.validation_file(study.root, job.algorithm, job.method)
    store.write_tensors(path, {"predicted": predicted}, fingerprint)


_FITS: dict[str, Callable[[StudyReader, Job, RunBank], None]] = {
    DATAMODEL: _fit_lasso,
    HYBRID: _fit_hybrid,
}
