"""Read a folder of `.npy` files that holds a run bank, in one of two published layouts.

Datamodels paper (MadryLab/datamodels-data): `train_masks*.npy` `[runs, n_train]` bool,
`test_margins*.npy` `[runs, n_test]` and optionally `train_margins*.npy` `[runs, n_train]`.

Store of the datamodels library (MadryLab/datamodels): `masks.npy`, `margins.npy`, and
`_completed.npy` `[runs]`, which marks finished runs.

`test_logits*.npy` `[runs, n_test, classes]` may take the place of margins. Files are memory-mapped
and never unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.store.errors import ImportingError
from engine.store.layout import SPLITS, Split
from engine.store.text import counted
from engine.study.capabilities import missing
from engine.study.reader import StudyReader

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


@dataclass(frozen=True)
class BankFolder:
    """The arrays of a run bank's folder, with one row per run.

    Attributes:
        masks: `[runs, n_train]`, bool or 0 and 1.
        outputs: Split → outputs `[runs, n]`, or logits `[runs, n, classes]`.
        rows: Numbers of the finished runs.
        output: The model output that the imported bank will hold.
        files: The files that were read: masks first, then one per split of `outputs`.
        notes: Notes for the user on how the files were read.
    """

    masks: np.ndarray
    outputs: dict[Split, np.ndarray]
    rows: np.ndarray
    output: str
    files: list[Path]
    notes: list[str] = field(default_factory=list)


def read_bank_folder(
    study: StudyReader, folder: Path, output: str, limit: int | None
) -> BankFolder:
    """Find a run bank's files and check their shapes against the study.

    Args:
        study: A study with its data built.
        output: The model output that the margins in the folder are.
        limit: Largest number of finished runs to use; None: all.

    Raises:
        ImportingError: Files are missing or ambiguous, or their shapes do not match the study.
    """
    if not folder.is_dir():
        raise ImportingError(f"{folder} is not a folder; a run bank is a folder of .npy files.")
    masks_file = _only(folder, MASKS)
    if masks_file is None:
        raise ImportingError(f"{folder} has no {' or '.join(MASKS)}. {_contents(folder)}")
    outputs_files: dict[Split, Path] = {}
    for split in SPLITS:
        path = _only(folder, LOGITS[split]) or _only(folder, OUTPUTS[split])
        if path is not None:
            outputs_files[split] = path
    if "test" not in outputs_files:
        names = " or ".join(OUTPUTS["test"] + LOGITS["test"])
        raise ImportingError(f"{folder} has no {names}. {_contents(folder)}")
    logits = {split: path for split, path in outputs_files.items() if "logits" in path.name}
    if logits and (reason := missing(study, "classes")):
        raise ImportingError(
            f"{next(iter(logits.values()))} holds class logits. {reason} Save the study's model "
            f"outputs ({study.dataset.output}) under the name of margins."
        )
    if logits and logits.keys() != outputs_files.keys():
        raise ImportingError(
            f"{folder} has logits of one split and margins of the other, which are different model "
            "outputs. Remove the files of one kind."
        )
    notes: list[str] = []
    n_train = study.dataset.n_train
    masks = _runs_first(masks_file, _open(masks_file), n_train, "training", None, notes)
    outputs = {
        split: _runs_first(
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
            "Its outputs are max-margins (the label's logit − the largest other logit), not "
            "Dataloupe's margins (− the logsumexp of the other logits)."
        )
    files = [masks_file, *outputs_files.values()]
    return BankFolder(masks, outputs, rows, output, files, notes)


def _only(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    """The file that matches the first pattern with any match; None if no pattern has one."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ImportingError(
                f"{folder} has several candidates: {names}. Put the files of one bank, or links to "
                "them, into a separate folder."
            )
        if found:
            return found[0]
    return None


def _contents(folder: Path) -> str:
    """A sentence on the folder's files, for an error message."""
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith(".safetensors") for name in names):
        return (
            "Runs that Dataloupe trained do not need an import: copy them into the study's "
            "algorithms/NAME/bank/, and `dataloupe build` checks whether they match."
        )
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"It contains {shown or 'nothing'}."


def _open(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ImportingError(
            f"{path} is not a complete .npy file of plain numbers ({str(error).splitlines()[0]})."
        ) from error


def _runs_first(
    path: Path,
    array: np.ndarray,
    n: int,
    what: str,
    n_runs: int | None,
    notes: list[str],
    classes: int | None = None,
) -> np.ndarray:
    """Return `array` with runs on its first axis and examples on its second.

    Args:
        n: Number of examples in the study's split.
        what: Name of the split in messages.
        n_runs: Number of runs; None if not known yet.
        notes: Gets a note if the array is transposed.
        classes: Length of the third axis of logits; None for outputs, which have two axes.
    """
    tail = () if classes is None else (classes,)
    axes = "[runs, examples]" if classes is None else f"[runs, examples, {classes} classes]"
    if array.ndim != 2 + len(tail) or array.shape[2:] != tail:
        raise ImportingError(f"{path} has shape {list(array.shape)}; expected {axes}.")
    if array.dtype.kind not in "bfiu":
        raise ImportingError(f"{path} holds {array.dtype}; expected numbers.")
    rows, columns = array.shape[:2]
    if columns == n and n_runs in (None, rows):
        return array
    if rows == n and n_runs in (None, columns):
        notes.append(
            f"{path.name} is [{rows:,} {what} examples, {counted(columns, 'run')}]; it is "
            "transposed."
        )
        return array.swapaxes(0, 1)
    meanings = [
        f"{length:,} {axis} ({_meaning(length, n, what, n_runs)})"
        for axis, length in (("rows", rows), ("columns", columns))
    ]
    runs = "" if n_runs is None else f" and masks of {counted(n_runs, 'run')}"
    raise ImportingError(
        f"{path} has {' and '.join(meanings)}; the study has {n:,} {what} examples{runs}."
    )


def _meaning(length: int, n: int, what: str, n_runs: int | None) -> str:
    names = [f"{what} examples"] if length == n else []
    names += ["masks"] if length == n_runs else []
    return f"as many as {' and '.join(names)}" if names else "which matches nothing"


def _finished(path: Path, n_runs: int, notes: list[str]) -> np.ndarray:
    """Numbers of the runs that the completed-file marks as finished; all if there is no file."""
    if not path.exists():
        return np.arange(n_runs)
    completed = np.asarray(_open(path)).reshape(-1)
    if len(completed) != n_runs:
        raise ImportingError(
            f"{path} has {counted(len(completed), 'entry', 'entries')} for "
            f"{counted(n_runs, 'run')}; it must have one per run."
        )
    rows = np.flatnonzero(completed)
    if len(rows) < n_runs:
        notes.append(f"Left out {n_runs - len(rows):,} of {n_runs:,} runs as unfinished.")
    return rows
