"""Read scores of kronfluence: `pairwise_scores.safetensors`, `[n_query, n_train]`.

The file holds one tensor for the whole model or one per module. Tested with kronfluence 1.0.1. A
positive score means that training on the example lowers the measurement: the example supports if
the measurement is a loss, and opposes if it is a margin.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import Matrix, open_safetensors, pick, summed
from engine.exchange.importing.source import Source, read_settings
from engine.store.errors import ImportingError

FILE = "pairwise_scores.safetensors"
ALL_MODULES = "all_modules"


def read(path: Path, array: str | None = None) -> Source:
    """Read pairwise scores. Scores of separate modules are added up.

    Args:
        path: The file, its folder (`scores_NAME`), or the folder of an analysis with one such
            folder.
        array: Read the scores of this module only.

    Raises:
        ImportingError: There are no aggregated scores, or the modules differ in shape.
    """
    file = _scores_file(path) if path.is_dir() else path
    tensors = open_safetensors(file)
    matrices = tensors.matrices
    settings = {
        "strategy": read_settings(file.parent / "factor_arguments.json").get("strategy"),
        "damping_factor": tensors.metadata.get("damping_factor"),
    }
    if array is not None:
        name = pick(file, {name: matrix.shape for name, matrix in matrices.items()}, array)
        return _source(file, [matrices[name]], {**settings, "module": name})
    if not matrices:
        raise ImportingError(f"{file} does not hold any scores.")
    if ALL_MODULES in matrices:
        return _source(file, [matrices[ALL_MODULES]], settings)
    if len({matrix.shape for matrix in matrices.values()}) > 1:
        shapes = ", ".join(f"{name} {list(matrix.shape)}" for name, matrix in matrices.items())
        raise ImportingError(
            f"{file} holds tensors of different shapes, which cannot be modules of one model: "
            f"{shapes}. Choose one with --array."
        )
    return _source(file, list(matrices.values()), {**settings, "modules": ", ".join(matrices)})


def _source(file: Path, matrices: list[Matrix], settings: dict[str, str | None]) -> Source:
    known = {name: value for name, value in settings.items() if value is not None}
    return Source("kronfluence", [file], summed(matrices), "test", known)


def _scores_file(folder: Path) -> Path:
    found = sorted(folder.glob(FILE)) or sorted(folder.glob(f"scores_*/{FILE}"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.parent.name for file in found)
        raise ImportingError(
            f"{folder} has several sets of scores ({names}); give the path of one of them."
        )
    if any(folder.glob("pairwise_scores_data_partition*")):
        raise ImportingError(
            f"{folder} has partitions that are not aggregated. Call `aggregate_pairwise_scores` in "
            "kronfluence first."
        )
    raise ImportingError(f"{folder} has no {FILE}, the file in which kronfluence saves scores.")
