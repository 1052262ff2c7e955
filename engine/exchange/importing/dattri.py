"""Read scores of dattri: the result of `attributor.attribute(...)`, `[n_train, n_test]`.

dattri does not save its results. Users save them with `np.save`, or with `torch.save` followed by
`dataloupe convert`.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_matrix
from engine.exchange.importing.source import Source


def read(path: Path, array: str | None = None) -> Source:
    """Read one array of a `.npy`, `.npz` or `.safetensors` file.

    Args:
        path: The file.
        array: Name of the array, if the file has several.

    Raises:
        ImportingError: The file cannot be read, or it is not clear which array is meant.
    """
    name, matrix = open_matrix(path, array)
    return Source("dattri", [path], matrix, "train", {"array": name} if name else {})
