"""Read scores of ModelDiff (MadryLab/modeldiff).

Scores for its API are `[n_test, n_train]`. The files published with the paper hold datamodels
`[n_train, n_test]` in a tensor `weight`.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_matrix
from engine.exchange.importing.source import Rows, Source

PUBLISHED = "weight"


def read(path: Path, array: str | None = None) -> Source:
    """Read one array of a `.npy`, `.npz` or `.safetensors` file (published .pt files: converted).

    Args:
        path: The file.
        array: Name of the array, if the file has several.

    Raises:
        ImportingError: The file cannot be read, or it is not clear which array is meant.
    """
    name, matrix = open_matrix(path, array)
    rows: Rows = "train" if name == PUBLISHED else "test"
    return Source("ModelDiff", [path], matrix, rows, {"array": name} if name else {})
