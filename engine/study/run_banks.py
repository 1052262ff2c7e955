"""The run bank of an algorithm, assembled from its shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from engine import store
from engine.attribution.datamodels import run_bank
from engine.attribution.datamodels.run_bank import BankImport, RunBank
from engine.attribution.evaluation.ceiling import RepeatedRuns
from engine.store import layout
from engine.store.errors import MissingFile, StoreError
from engine.store.layout import SPLITS
from engine.store.spec import Part
from engine.store.walk import paths_in
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader


def wants_bank(study: StudyReader, algorithm: str) -> bool:
    """Whether the algorithm has a run bank, or will have one after the build."""
    if layout.bank_import_file(study.root, algorithm).exists():
        return True
    return bool(wanted_runs(study)) and algorithm in study.spec.algorithms


def is_tuned(study: StudyReader, algorithm: str) -> bool:
    """Whether settings of TRAK are chosen on validation runs."""
    return bool(wants_bank(study, algorithm) and study.spec.trak.tunable)


def wanted_runs(study: StudyReader) -> list[tuple[int, int]]:
    """(mask, seed) of every subset run in the spec."""
    runs = study.spec.subset_runs
    return [(mask, seed) for mask in range(runs.masks) for seed in range(runs.seeds_of(mask))]


def run_seed(study: StudyReader, mask: int, seed: int) -> int:
    """Seed of a subset run's training; the same for all algorithms."""
    return int(store.fingerprint_of("subset run", study.spec.seed, mask, seed)[:7], 16)


def finished_runs(study: StudyReader, algorithm: str) -> set[tuple[int, int]]:
    """(mask, seed) of the subset runs that are finished."""
    names = {path.name for path in paths_in(layout.bank_folder(study.root, algorithm))}
    return {
        run
        for run in wanted_runs(study)
        if layout.run_file(study.root, algorithm, *run).name in names
    }


def read_bank_import(study: StudyReader, algorithm: str | None = None) -> BankImport | None:
    """The import of the algorithm's run bank; None if this study trains it."""
    path = layout.bank_import_file(study.root, resolve_algorithm(study, algorithm))
    try:
        return BankImport(**store.read_json(path))
    except MissingFile:
        return None


def has_bank(study: StudyReader, algorithm: str) -> bool:
    """Whether there is a complete run bank: an imported one, or the one in the spec."""
    if layout.bank_import_file(study.root, algorithm).exists():
        return True
    wanted = wanted_runs(study)
    return bool(wanted) and len(finished_runs(study, algorithm)) == len(wanted)


def read_bank(study: StudyReader, algorithm: str | None = None, train: bool = True) -> RunBank:
    """The run bank: masks, and the outputs of models trained on them.

    Args:
        train: Also read the outputs on training examples, the larger part.

    Raises:
        StoreError: There is none, some runs are not finished yet, or one cannot be used.
    """
    algorithm = resolve_algorithm(study, algorithm)
    if about := read_bank_import(study, algorithm):
        files = [
            layout.imported_runs_file(study.root, algorithm, about.fingerprint, n)
            for n in range(about.shards)
        ]
        return run_bank.gather(about, map(store.read_tensors, files), study.dataset.n_train, train)
    _check_that_bank_is_complete(study, algorithm)
    n_train, runs = study.dataset.n_train, study.spec.subset_runs
    seeds = [runs.seeds_of(mask) for mask in range(runs.masks)]
    masks = np.empty((runs.masks, n_train), dtype=bool)
    outputs = {
        split: np.empty((runs.masks, study.dataset.rows(split)), np.float32)
        for split in SPLITS
        if train or split == "test"
    }
    for mask in range(runs.masks):
        shards = [_read_run(study, algorithm, mask, seed) for seed in range(seeds[mask])]
        masks[mask] = run_bank.unpack(shards[0]["mask"], n_train)
        for split, rows in outputs.items():
            rows[mask] = run_bank.mean_of_seeds(shard[split] for shard in shards)
    return RunBank(
        masks=masks,
        train=outputs.get("train"),
        test=outputs["test"],
        seeds=np.array(seeds),
        numbers=np.arange(runs.masks),
        output=study.dataset.output,
    )


def read_repeated_runs(
    study: StudyReader, algorithm: str | None = None, parts: Sequence[Part] = ("test",)
) -> RepeatedRuns:
    """How the runs of each mask of some parts differ on the test examples.

    Raises as `read_bank`.
    """
    algorithm = resolve_algorithm(study, algorithm)
    bank = read_bank(study, algorithm, train=False).part(*parts)
    squares = np.zeros(bank.test.shape)
    rows = {int(number): row for row, number in enumerate(bank.numbers)}
    for number, outputs in _runs_of(study, algorithm, bank):
        row = rows[number]
        squares[row] += (outputs.astype(np.float64) - bank.test[row]) ** 2
    return RepeatedRuns(bank.test, squares, bank.seeds)


def _runs_of(study: StudyReader, algorithm: str, bank: RunBank) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the mask, outputs on the test examples) of each run of these masks."""
    if about := read_bank_import(study, algorithm):
        wanted = set(bank.numbers.tolist())
        for n in range(about.shards):
            path = layout.imported_runs_file(study.root, algorithm, about.fingerprint, n)
            shard = store.read_tensors(path)
            for place, number in enumerate(shard["number"].tolist()):
                if number in wanted:
                    yield number, shard["test"][place]
        return
    for number, seeds in zip(bank.numbers.tolist(), bank.seeds.tolist(), strict=True):
        for seed in range(seeds):
            yield number, _read_run(study, algorithm, number, seed)["test"]


def _check_that_bank_is_complete(study: StudyReader, algorithm: str) -> None:
    wanted, found = len(wanted_runs(study)), len(finished_runs(study, algorithm))
    if not wanted:
        raise StoreError(
            f"{study.root} has no run bank of {algorithm}: set `masks` under [subset_runs] in "
            f"study.toml, then `dataloupe build {study.root}`; or `dataloupe import bank`."
        )
    if found < wanted:
        raise StoreError(
            f"The run bank of {algorithm} has {found} of {wanted} runs so far. "
            f"`dataloupe build {study.root}` trains the others."
        )


def _read_run(study: StudyReader, algorithm: str, mask: int, seed: int) -> dict[str, np.ndarray]:
    path = layout.run_file(study.root, algorithm, mask, seed)
    shard = store.read_tensors(path)
    for split in SPLITS:
        if problem := run_bank.output_problem(shard[split]):
            raise store.broken(path, f"{problem} on the {split} split")
    return shard
