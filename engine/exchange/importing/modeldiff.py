"""ModelDiff (MadryLab/modeldiff): scores for its API are `[n_test, n_train]`; the files published
with the paper hold datamodels in a tensor `weight` the other way round."""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_matrix
from engine.exchange.importing.source import Rows, Source

PUBLISHED = "weight"


def read(path: Path, array: str | None = None) -> Source:
    """One array of a `.npy`, `.npz` or `.safetensors` (the published .pt, converted).

    Args:
        path: The file.
        array: Which array, where the file has several.

    Raises:
        ImportingError: It cannot be read as one matrix.
    """
    name, matrix = open_matrix(path, array)
    rows: Rows = "train" if name == PUBLISHED else "test"
    return Source("ModelDiff", [path], matrix, rows, {"array": name} if name else {})
