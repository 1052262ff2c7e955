"""traker (MadryLab/trak): a `save_dir` with `scores/EXPERIMENT.mmap`, `[n_train, n_test]`.

Such a file is a `.npy` in half or single precision. Held against traker 0.3.2.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_npy
from engine.exchange.importing.source import Source, read_settings
from engine.store.errors import ImportingError

_SETTINGS = ("JL dimension", "JL matrix type")


def read(path: Path, array: str | None = None) -> Source:
    """The scores of one experiment.

    Args:
        path: The save_dir, or one file of its `scores` folder.
        array: Name of the experiment, where there are several.

    Raises:
        ImportingError: There are no finished scores, or they do not fit the metadata beside them.
    """
    folder = path if path.is_dir() else path.parent.parent
    scores = _experiment(folder, array) if path.is_dir() else path
    matrix = open_npy(scores)
    metadata = read_settings(folder / "metadata.json")
    n_train = metadata.get("train set size", matrix.shape[0])
    if n_train != matrix.shape[0]:
        raise ImportingError(
            f"{scores} has {matrix.shape[0]:,} rows, but {folder / 'metadata.json'} says that the "
            f"training set has {n_train}: they do not belong together."
        )
    experiment = read_settings(folder / "experiments.json").get(scores.stem)
    if isinstance(experiment, dict) and experiment.get("scores_finalized") != 1:
        raise ImportingError(
            f"{scores} is not finished; traker's `finalize_scores(exp_name={scores.stem!r})` "
            "does that."
        )
    settings = {name: metadata[name] for name in _SETTINGS if name in metadata}
    return Source("traker", [scores], matrix, "train", settings)


def _experiment(folder: Path, name: str | None) -> Path:
    found = {file.stem: file for file in sorted((folder / "scores").glob("*.mmap"))}
    if not found:
        raise ImportingError(
            f"{folder} has no scores/*.mmap, as a save_dir of traker has once `finalize_scores` "
            "was called."
        )
    if name is None and len(found) > 1:
        raise ImportingError(
            f"{folder} has scores of several experiments ({', '.join(found)}); say which with "
            "--array."
        )
    chosen = name or next(iter(found))
    if chosen not in found:
        raise ImportingError(f"{folder} has no experiment {chosen!r}; it has {', '.join(found)}.")
    return found[chosen]
