"""Bring in a run bank that was made elsewhere, in the layout of the datamodels paper's authors.

A folder of `.npy` files (MadryLab/datamodels-data): `train_masks*.npy` `[runs, n_train]` bool and
`test_margins*.npy` `[runs, n_test]`, perhaps `train_margins*.npy` `[runs, n_train]`. Or the store
of MadryLab/datamodels: `masks.npy`, `margins.npy`, and `_completed.npy` `[runs]`, which says which
runs are finished.

Their margin is the label's logit − the *largest* other; ours − the *logsumexp* of the others. Where
`test_logits*.npy` `[runs, n_test, classes]` is there, ours is computed from it; else theirs is
kept, and said wherever the bank is used. Files are memory-mapped, never unpickled.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import BankImport, fault, gather, pack, unpack
from engine.attribution.evaluation.lds import spearman
from engine.build.build import build_data, writing
from engine.store import layout
from engine.store.errors import ImportingError
from engine.store.layout import SPLITS, Split
from engine.store.records import Progress
from engine.store.spec import FEWEST_MASKS, Output
from engine.study.examples import read_stacked_arrays
from engine.study.models import has_predictions, read_predictions
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank_import

CODE = 1
"""Raised whenever the same files would give another bank."""
MASKS = ("train_masks*.npy", "masks*.npy")
OUTPUTS: dict[Split, tuple[str, ...]] = {
    "train": ("train_margins*.npy",),
    "test": ("test_margins*.npy", "val_margins*.npy", "margins*.npy"),
}
LOGITS: dict[Split, tuple[str, ...]] = {
    "train": ("train_logits*.npy",),
    "test": ("test_logits*.npy", "val_logits*.npy", "logits*.npy"),
}
COMPLETED = "_completed.npy"

_SHARD_BYTES = 64 * 2**20
_LOOKED_AT = 200
"""How many runs tell whether models are surer of what they were trained on."""
_FEWEST_TO_JUDGE = 20


@dataclass(frozen=True)
class _Runs:
    """What is in a folder, one row a run.

    Attributes:
        masks: `[runs, n_train]`, bool or 0 and 1.
        outputs: Split → `[runs, n]` outputs, or `[runs, n, classes]` logits.
        rows: Those runs that are finished.
        output: Which model output the bank will hold.
        files: What was read.
        notes: How it was read.
    """

    masks: np.ndarray
    outputs: dict[Split, np.ndarray]
    rows: np.ndarray
    output: Output
    files: list[Path]
    notes: list[str] = field(default_factory=list)


def import_bank(
    study: StudyReader,
    folder: str | Path,
    algorithm: str | None = None,
    output: Output = "max-margin",
    runs: int | None = None,
    replace: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> BankImport:
    """Import a run bank; the study then trains no subset runs of that algorithm.

    Args:
        folder: With the `.npy` files.
        algorithm: That made the runs; None: the study's first.
        output: What the margins are, as the user says; theirs are max-margins.
        runs: Only the first so many.
        replace: In place of another imported bank.
        on_progress: Called as the work goes on.

    Raises:
        ImportingError: Files are missing, do not fit the study or each other, or hold what no
            training gives; the study is as it was.
        DataloupeError: No such algorithm; and what reading the data raises.
    """
    folder, report = Path(folder), on_progress or (lambda progress: None)
    algorithm = resolve_algorithm(study, algorithm)
    if runs is not None and runs < 1:
        raise ImportingError(f"runs must be 1 or more, not {runs}.")
    build_data(study, report)
    found = _read(study, folder, output, runs)
    files = {path.name: store.file_digest(path) for path in found.files}
    fingerprint = store.fingerprint_of(
        "bank", CODE, files, found.output, found.rows.tolist(), study.dataset.fingerprint
    )
    with writing(study):
        before = read_bank_import(study, algorithm)
        if before and before.fingerprint == fingerprint:
            return before
        if before and not replace:
            raise ImportingError(f"{algorithm} has another imported run bank: add --replace.")
        try:
            about = _write(study, algorithm, folder, found, files, fingerprint, report)
            notes = [*about.notes, *_plausibility(study, algorithm, about, folder)]
            about = dataclasses.replace(about, notes=notes)
            store.write_json(
                layout.bank_import_file(study.root, algorithm), asdict(about), fingerprint
            )
        finally:
            _sweep(study, algorithm)
    return about


def _sweep(study: StudyReader, algorithm: str) -> None:
    """Remove shards that are not of the bank that is there: refused, replaced, or interrupted."""
    about = read_bank_import(study, algorithm)
    folder = layout.bank_import_file(study.root, algorithm).parent
    if about is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept = {
        layout.imported_runs_file(study.root, algorithm, about.fingerprint, n)
        for n in range(about.shards)
    }
    for path in folder.glob("*.safetensors"):
        if path not in kept:
            path.unlink()


# --- what is in the folder -----------------------------------------------------------------------


def _read(study: StudyReader, folder: Path, output: Output, limit: int | None) -> _Runs:
    if not folder.is_dir():
        raise ImportingError(f"{folder} is no folder; a run bank is a folder of .npy files.")
    masks_file = _only(folder, MASKS)
    if masks_file is None:
        raise ImportingError(f"{folder} has no {' or '.join(MASKS)}. {_what_is_there(folder)}")
    outputs_files: dict[Split, Path] = {}
    for split in SPLITS:
        path = _only(folder, LOGITS[split]) or _only(folder, OUTPUTS[split])
        if path is not None:
            outputs_files[split] = path
    if "test" not in outputs_files:
        wanted = " or ".join(OUTPUTS["test"] + LOGITS["test"])
        raise ImportingError(f"{folder} has no {wanted}. {_what_is_there(folder)}")
    logits = {split: path for split, path in outputs_files.items() if "logits" in path.name}
    if logits and logits.keys() != outputs_files.keys():
        raise ImportingError(
            f"{folder} has logits of one split and margins of the other, which are two outputs: "
            "leave one kind away."
        )
    notes: list[str] = []
    n_train = study.dataset.n_train
    masks = _turned(masks_file, _open(masks_file), n_train, "training", None, notes)
    outputs = {
        split: _turned(
            path,
            _open(path),
            study.dataset.rows(split),
            "training" if split == "train" else "test",
            len(masks),
            notes,
            len(study.dataset.classes) if split in logits else None,
        )
        for split, path in outputs_files.items()
    }
    rows = _finished(folder / COMPLETED, len(masks), notes)[:limit]
    if logits:
        output = "margin"
    elif output == "max-margin":
        notes.append(
            "Its outputs are max-margins (logit of the label − the largest other), not our margins "
            "(− logsumexp of the others)."
        )
    files = [masks_file, *outputs_files.values()]
    return _Runs(masks, outputs, rows, output, files, notes)


def _only(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    """The file of the first pattern that has one."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ImportingError(
                f"{folder} has several: {names}. Put the files of one bank into a folder of their "
                "own (links will do)."
            )
        if found:
            return found[0]
    return None


def _what_is_there(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith(".safetensors") for name in names):
        return (
            "Runs that Dataloupe trained need no import: copy them into the study's "
            "algorithms/NAME/bank/, and `dataloupe build` says whether they fit."
        )
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"It has {shown or 'nothing'}."


def _open(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ImportingError(
            f"{path} is no whole .npy file of plain numbers ({str(error).splitlines()[0]})."
        ) from error


def _turned(
    path: Path,
    array: np.ndarray,
    n: int,
    what: str,
    n_runs: int | None,
    notes: list[str],
    classes: int | None = None,
) -> np.ndarray:
    """`array` with runs along its first axis and the `n` examples along its second."""
    tail = () if classes is None else (classes,)
    axes = "[runs, examples]" if classes is None else f"[runs, examples, {classes} classes]"
    if array.ndim != 2 + len(tail) or array.shape[2:] != tail:
        raise ImportingError(f"{path} has the shape {list(array.shape)}; {axes} was expected.")
    if array.dtype.kind not in "bfiu":
        raise ImportingError(f"{path} holds {array.dtype}; numbers were expected.")
    rows, columns = array.shape[:2]
    if columns == n and n_runs in (None, rows):
        return array
    if rows == n and n_runs in (None, columns):
        notes.append(f"{path.name} is [{rows:,} {what} examples, {columns:,} runs]; it is turned.")
        return array.swapaxes(0, 1)
    meanings = [
        f"{length:,} {axis} ({_meaning(length, n, what, n_runs)})"
        for axis, length in (("rows", rows), ("columns", columns))
    ]
    runs = "" if n_runs is None else f" and {n_runs:,} runs have masks"
    raise ImportingError(
        f"{path} has {' and '.join(meanings)}; the study has {n:,} {what} examples{runs}."
    )


def _meaning(length: int, n: int, what: str, n_runs: int | None) -> str:
    names = [f"{what} examples"] if length == n else []
    names += ["masks"] if length == n_runs else []
    return f"as many as {' and '.join(names)}" if names else "which fits nothing"


def _finished(path: Path, n_runs: int, notes: list[str]) -> np.ndarray:
    """Numbers of the runs that the store says are finished; all where it says nothing."""
    if not path.exists():
        return np.arange(n_runs)
    completed = np.asarray(_open(path)).reshape(-1)
    if len(completed) != n_runs:
        raise ImportingError(f"{path} has {len(completed):,} entries for {n_runs:,} runs.")
    rows = np.flatnonzero(completed)
    if len(rows) < n_runs:
        notes.append(f"{n_runs - len(rows):,} of {n_runs:,} runs are not finished and left out.")
    return rows


# --- into the study ------------------------------------------------------------------------------


def _write(
    study: StudyReader,
    algorithm: str,
    folder: Path,
    found: _Runs,
    files: dict[str, str],
    fingerprint: str,
    report: Callable[[Progress], None],
) -> BankImport:
    """Write the shards, checking every number; return what the bank is."""
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
            f"{folder} has {total} finished runs on {len(numbers)} different masks; at least "
            f"{FEWEST_MASKS} masks are needed, and some hundred are useful."
        )
    if constant.any():
        raise ImportingError(
            f"{found.files[-1]}: {constant.sum():,} of {len(constant):,} test examples have the "
            "same output in all runs; no training on random subsets gives that."
        )
    alpha = round(chosen / (total * study.dataset.n_train), 6)
    return dataclasses.replace(about, masks=len(numbers), alpha=alpha)


def _masks(path: Path, rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Checked masks, bool `[b, n_train]`."""
    masks: np.ndarray = rows.astype(bool)
    if not np.array_equal(masks, rows):
        raise ImportingError(f"{path} holds other values than 0 and 1, so it holds no masks.")
    sizes = masks.sum(axis=1)
    for run in np.flatnonzero((sizes == 0) | (sizes == masks.shape[1])):
        which = "no" if sizes[run] == 0 else "every"
        raise ImportingError(
            f"{path}: run {numbers[run]} was trained on {which} example. Was it finished?"
        )
    return masks


def _outputs(path: Path, rows: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Checked outputs `[b, n]`, float16 as they came or float32."""
    outputs = _margins(rows, labels) if rows.ndim == 3 else rows
    if outputs.dtype not in (np.float16, np.float32):
        outputs = outputs.astype(np.float32)
    for run, found in zip(numbers, map(fault, outputs), strict=True):
        if found:
            raise ImportingError(
                f"{path}: of run {run}, {found}. Leave such runs out, or say which are finished "
                f"in {COMPLETED}."
            )
    return outputs


def _margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Our margins `[b, n]` of logits `[b, n, classes]`: logit_y − logsumexp of the others."""
    logits = logits.astype(np.float32)
    label = np.broadcast_to(labels[None, :, None], (*logits.shape[:2], 1))
    own = np.take_along_axis(logits, label, axis=2)[..., 0]
    np.put_along_axis(logits, label, -np.inf, axis=2)
    top = logits.max(axis=2, keepdims=True)
    margins: np.ndarray = own - top[..., 0] - np.log(np.exp(logits - top).sum(axis=2))
    return margins


# --- does it belong here? ------------------------------------------------------------------------


def _plausibility(study: StudyReader, algorithm: str, about: BankImport, folder: Path) -> list[str]:
    """Whether these can be runs on the study's examples, in the study's order: notes say how sure.

    Shapes cannot tell that. But models agree on which test examples are hard, and every model is
    surer of the examples that it was trained on.
    """
    notes = []
    shards = [
        store.read_tensors(layout.imported_runs_file(study.root, algorithm, about.fingerprint, n))
        for n in range(about.shards)
    ]
    if has_predictions(study, algorithm):
        outputs = gather(about, shards, study.dataset.n_train, train=False).test.mean(axis=0)
        margins = read_predictions(study, "test", algorithm)["margin"].to_numpy()
        agreement = float(spearman(outputs[None], margins[None])[0])
        if agreement < max(0.1, 3 / np.sqrt(len(margins))):
            raise ImportingError(
                f"{folder} does not belong to {algorithm} on these data: which test examples its "
                f"runs find hard goes with what the checkpoints find hard at a rank correlation of "
                f"{agreement:.2f}. Another dataset, or another order of the test examples?"
            )
        notes.append(
            f"Which test examples are hard: rank correlation {agreement:.2f} with the checkpoints."
        )
    if about.train:
        masks = unpack(shards[0]["mask"][:_LOOKED_AT], study.dataset.n_train)
        gain, error = _gain(masks, shards[0]["train"][:_LOOKED_AT])
        if len(masks) >= _FEWEST_TO_JUDGE and gain < 2 * error:
            raise ImportingError(
                f"{folder}: models are no surer of the examples that the masks say they were "
                f"trained on ({gain:+.3f} ± {error:.3f}). Are masks and outputs of the same runs, "
                "and of training examples in the same order?"
            )
        notes.append(
            f"Models are surer of examples that they were trained on, by {gain:.2f} ± {error:.2f}."
        )
    return notes


def _gain(masks: np.ndarray, outputs: np.ndarray) -> tuple[float, float]:
    """How much higher outputs are on examples trained on, the mean over runs, and its error."""
    outputs = outputs - outputs.mean(axis=0, dtype=np.float64)
    inside = (outputs * masks).sum(axis=1) / masks.sum(axis=1)
    outside = (outputs * ~masks).sum(axis=1) / (~masks).sum(axis=1)
    gains = inside - outside
    return float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
