"""Read scores of traker (MadryLab/trak): a `save_dir` with `scores/EXPERIMENT.mmap`.

Such a file is in `.npy` format, float16 or float32 `[n_train, n_test]`. Tested with traker 0.3.2.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_npy
from engine.exchange.importing.source import Source, read_settings
from engine.store.errors import ImportingError
from engine.store.text import counted

_SETTINGS = ("JL dimension", "JL matrix type")


def read(path: Path, array: str | None = None) -> Source:
    """Read the scores of one experiment.

    Args:
        path: The save_dir, or one file of its `scores` folder.
        array: Name of the experiment, if there are several.

    Raises:
        ImportingError: There are no finalized scores, or they do not match their metadata.
    """
    folder = path if path.is_dir() else path.parent.parent
    scores = _experiment(folder, array) if path.is_dir() else path
    matrix = open_npy(scores)
    metadata = read_settings(folder / "metadata.json")
    n_train = metadata.get("train set size", matrix.shape[0])
    if n_train != matrix.shape[0]:
        raise ImportingError(
            f"{scores} has {counted(matrix.shape[0], 'row')}, but according to "
            f"{folder / 'metadata.json'} the training set has {n_train}. Restore the files of one "
            "run of traker."
        )
    experiment = read_settings(folder / "experiments.json").get(scores.stem)
    if isinstance(experiment, dict) and experiment.get("scores_finalized") != 1:
        raise ImportingError(
            f"{scores} is not finalized. Call `finalize_scores(exp_name={scores.stem!r})` in "
            "traker first."
        )
    settings = {name: metadata[name] for name in _SETTINGS if name in metadata}
    return Source("traker", [scores], matrix, "train", settings)


def _experiment(folder: Path, name: str | None) -> Path:
    found = {file.stem: file for file in sorted((folder / "scores").glob("*.mmap"))}
    if not found:
        raise ImportingError(
            f"{folder} has no scores/*.mmap, which `finalize_scores` of traker writes into its "
            "save_dir."
        )
    if name is None and len(found) > 1:
        raise ImportingError(
            f"{folder} has scores of several experiments ({', '.join(found)}); choose one with "
            "--array."
        )
    chosen = name or next(iter(found))
    if chosen not in found:
        raise ImportingError(f"{folder} has no experiment {chosen!r}; it has {', '.join(found)}.")
    return found[chosen]
