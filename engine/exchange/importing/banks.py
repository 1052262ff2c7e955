"""Import a run bank that was trained elsewhere.

`engine.exchange.importing.bank_folder` describes the files. Published margins are the label's logit
minus the *largest* other logit; Dataloupe's subtract the *logsumexp* of the others. If the folder
holds logits, Dataloupe's margins are computed from them; otherwise the published ones are kept, and
every use of the bank states so.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import BankImport, gather, output_problem, pack, unpack
from engine.attribution.evaluation.lds import spearman
from engine.build.batches import stored_out_to_loss
from engine.build.build import build_data, writing
from engine.exchange.importing.bank_folder import COMPLETED, BankFolder, read_bank_folder
from engine.store import layout
from engine.store.errors import ImportingError
from engine.store.layout import SPLITS, Split
from engine.store.records import Progress
from engine.store.spec import FEWEST_MASKS, ImportedOutput
from engine.store.text import counted
from engine.store.walk import paths_in
from engine.study.capabilities import has
from engine.study.examples import read_stacked_arrays
from engine.study.models import has_predictions, read_predictions
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank_import

CODE = 1
"""Increment when the same files would give a different bank."""

_SHARD_BYTES = 64 * 2**20
_RUNS_TO_CHECK = 200
"""Number of runs on which to compare margins inside and outside the masks."""
_FEWEST_TO_CHECK = 20
"""A bank with fewer runs is never refused by that comparison."""


def import_bank(
    study: StudyReader,
    folder: str | Path,
    algorithm: str | None = None,
    output: ImportedOutput | str = "max-margin",
    runs: int | None = None,
    replace: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> BankImport:
    """Import a run bank. The study then trains no subset runs of that algorithm.

    The study's data are read first if necessary.

    Args:
        folder: The folder with the `.npy` files.
        algorithm: The algorithm that trained the runs; None: the study's first.
        output: The model output that the margins in the folder are; without classes, outputs are
            the study's own.
        runs: Import only this many runs, the first ones; None: all.
        replace: Replace a different imported bank.
        on_progress: Called with the progress of the import.

    Raises:
        ImportingError: Files are missing, do not match the study or each other, or hold implausible
            numbers. The study is unchanged.
        DataloupeError: There is no such algorithm, or the data cannot be read.
    """
    folder, report = Path(folder), on_progress or (lambda progress: None)
    algorithm = resolve_algorithm(study, algorithm)
    if runs is not None and runs < 1:
        raise ImportingError(f"runs must be 1 or more, not {runs}.")
    build_data(study, report)
    if not has(study, "classes"):
        output = study.dataset.output
    found = read_bank_folder(study, folder, output, runs)
    files = {path.name: store.file_digest(path) for path in found.files}
    fingerprint = store.fingerprint_of(
        "bank", CODE, files, found.output, found.rows.tolist(), study.dataset.fingerprint
    )
    with writing(study):
        before = read_bank_import(study, algorithm)
        if before and before.fingerprint == fingerprint:
            return before
        if before and not replace:
            raise ImportingError(
                f"{algorithm} already has a different imported run bank. Add --replace to replace "
                "it."
            )
        try:
            about = _write(study, algorithm, folder, found, files, fingerprint, report)
            notes = [*about.notes, *_plausibility(study, algorithm, about, folder)]
            about = dataclasses.replace(about, notes=notes)
            store.write_json(
                layout.bank_import_file(study.root, algorithm), asdict(about), fingerprint
            )
        finally:
            _remove_other_shards(study, algorithm)
    return about


def _remove_other_shards(study: StudyReader, algorithm: str) -> None:
    """Remove shards of refused, replaced and interrupted imports."""
    about = read_bank_import(study, algorithm)
    folder = layout.bank_import_file(study.root, algorithm).parent
    if about is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept = {
        layout.imported_runs_file(study.root, algorithm, about.fingerprint, n)
        for n in range(about.shards)
    }
    for path in paths_in(folder, "*.safetensors"):
        if path not in kept:
            path.unlink(missing_ok=True)


# --- writing -------------------------------------------------------------------------------------


def _write(
    study: StudyReader,
    algorithm: str,
    folder: Path,
    found: BankFolder,
    files: dict[str, str],
    fingerprint: str,
    report: Callable[[Progress], None],
) -> BankImport:
    """Check every number, write the shards, and return a description of the bank."""
    labels: dict[Split, np.ndarray | None] = dict.fromkeys(SPLITS)
    if has(study, "classes"):
        labels = {split: read_stacked_arrays(study, split)["label"][:] for split in SPLITS}
    numbers: dict[bytes, int] = {}
    constant = np.ones(study.dataset.n_test, dtype=bool)
    chosen, total = 0, len(found.rows)
    size = max(1, _SHARD_BYTES // (4 * (study.dataset.n_train + study.dataset.n_test)))
    about = BankImport(
        fingerprint=fingerprint,
        folder=folder.resolve().name,
        files=files,
        output=found.output,
        runs=total,
        masks=0,
        alpha=0.0,
        train="train" in found.outputs,
        shards=-(-total // size),
        notes=found.notes,
        dataset=study.dataset.fingerprint,
    )
    for shard in range(about.shards):
        rows = found.rows[shard * size : (shard + 1) * size]
        masks = _masks(found.files[0], found.masks[rows], rows)
        bits = pack(masks)
        tensors = {
            "mask": bits,
            "number": np.array([numbers.setdefault(b.tobytes(), len(numbers)) for b in bits]),
        }
        for split, path in zip(found.outputs, found.files[1:], strict=True):
            tensors[split] = _outputs(path, found.outputs[split][rows], labels[split], rows)
        if shard == 0:
            first = tensors["test"][0]
        constant &= (tensors["test"] == first).all(axis=0)
        chosen += int(masks.sum())
        store.write_tensors(
            layout.imported_runs_file(study.root, algorithm, about.fingerprint, shard),
            tensors,
            fingerprint,
        )
        report(Progress("import", algorithm, shard * size + len(rows), total))
    if len(numbers) < FEWEST_MASKS:
        raise ImportingError(
            f"{folder} has {counted(total, 'finished run')} on "
            f"{counted(len(numbers), 'different mask')}; at least {FEWEST_MASKS} masks are "
            "required, and a few hundred are useful."
        )
    if constant.any():
        raise ImportingError(
            f"{found.files[-1]}: all runs have the same output for {constant.sum():,} of "
            f"{counted(len(constant), 'test example')}, which cannot result from training on "
            "random subsets. Check how the file was made."
        )
    alpha = round(chosen / (total * study.dataset.n_train), 6)
    return dataclasses.replace(about, masks=len(numbers), alpha=alpha)


def _masks(path: Path, rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Check masks and return them as bool `[runs, n_train]`."""
    masks: np.ndarray = rows.astype(bool)
    if not np.array_equal(masks, rows):
        raise ImportingError(f"{path} holds values other than 0 and 1, so it does not hold masks.")
    sizes = masks.sum(axis=1)
    for run in np.flatnonzero((sizes == 0) | (sizes == masks.shape[1])):
        which = "no" if sizes[run] == 0 else "every"
        raise ImportingError(
            f"{path}: run {numbers[run]} was trained on {which} example. Leave it out, or mark the "
            f"finished runs in {COMPLETED}."
        )
    return masks


def _outputs(
    path: Path, rows: np.ndarray, labels: np.ndarray | None, numbers: np.ndarray
) -> np.ndarray:
    """Check outputs and return them as `[runs, n]`, float16 if the file has it, else float32.

    Args:
        rows: Outputs, or class logits, for which there are labels.
        labels: Class numbers; None without classes.
    """
    outputs = rows if labels is None or rows.ndim == 2 else _margins(rows, labels)
    if outputs.dtype not in (np.float16, np.float32):
        outputs = outputs.astype(np.float32)
    for run, found in zip(numbers, map(output_problem, outputs), strict=True):
        if found:
            raise ImportingError(
                f"{path}: in run {run}, {found}. Leave such runs out, or mark the finished runs in "
                f"{COMPLETED}."
            )
    return outputs


def _margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Margins `[runs, n]` of logits `[runs, n, classes]`: logit_y − logsumexp of the others."""
    logits = logits.astype(np.float32)
    label = np.broadcast_to(labels[None, :, None], (*logits.shape[:2], 1))
    own = np.take_along_axis(logits, label, axis=2)[..., 0]
    np.put_along_axis(logits, label, -np.inf, axis=2)
    top = logits.max(axis=2, keepdims=True)
    margins: np.ndarray = own - top[..., 0] - np.log(np.exp(logits - top).sum(axis=2))
    return margins


# --- plausibility --------------------------------------------------------------------------------


def _plausibility(study: StudyReader, algorithm: str, about: BankImport, folder: Path) -> list[str]:
    """Check that the runs can belong to the study's examples, in the study's order.

    Shapes cannot show that. But models agree on which test examples are hard, and a model has
    higher margins on the examples that it was trained on; outputs without classes move there in
    the direction of Q, which lowers the loss.

    Returns:
        Notes for the user with the measured agreement.

    Raises:
        ImportingError: The runs do not agree with the checkpoints or with their masks.
    """
    notes = []
    classes = has(study, "classes")
    outputs_are, better = ("margins", "higher") if classes else ("outputs", "better")
    shards = [
        store.read_tensors(layout.imported_runs_file(study.root, algorithm, about.fingerprint, n))
        for n in range(about.shards)
    ]
    if has_predictions(study, algorithm):
        outputs = gather(about, shards, study.dataset.n_train, train=False).test.mean(axis=0)
        margins = read_predictions(study, "test", algorithm)["output"].to_numpy()
        agreement = float(spearman(outputs[None], margins[None])[0])
        if agreement < max(0.1, 3 / np.sqrt(len(margins))):
            raise ImportingError(
                f"{folder} does not belong to {algorithm} on this dataset: the rank correlation "
                f"between its runs' mean {outputs_are} and the checkpoints' {outputs_are} is only "
                f"{agreement:.2f}. Check the dataset and the order of the test examples."
            )
        notes.append(
            f"Rank correlation of the test examples' {outputs_are} with those of the checkpoints: "
            f"{agreement:.2f}."
        )
    if about.train and (classes or has_predictions(study, algorithm)):
        masks = unpack(shards[0]["mask"][:_RUNS_TO_CHECK], study.dataset.n_train)
        outputs = shards[0]["train"][:_RUNS_TO_CHECK]
        if not classes:
            outputs = outputs * np.sign(stored_out_to_loss(study, algorithm, 0))
        gain, error = _gain(masks, outputs)
        if len(masks) >= _FEWEST_TO_CHECK and gain < 2 * error:
            raise ImportingError(
                f"{folder}: {outputs_are} are not {better} on the examples in a model's mask "
                f"({gain:+.3f} ± {error:.3f}). Check that masks and outputs list the same runs, "
                "and the training examples in the same order."
            )
        notes.append(
            f"{outputs_are.capitalize()} are {better} on examples in a model's mask, by "
            f"{gain:.2f} ± {error:.2f}."
        )
    return notes


def _gain(masks: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """Mean over runs of outputs inside the mask minus those outside, and its standard error."""
    outputs = outputs - outputs.mean(axis=0, dtype=np.float64)
    inside = (outputs * masks).sum(axis=1) / masks.sum(axis=1)
    outside = (outputs * ~masks).sum(axis=1) / (~masks).sum(axis=1)
    gains = inside - outside
    return float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
