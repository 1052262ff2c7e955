"""dattri: what `attributor.attribute(...)` returned, `[n_train, n_test]`.

dattri leaves saving to its user: `np.save`, or `torch.save` followed by `dataloupe convert`.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_matrix
from engine.exchange.importing.source import Source


def read(path: Path, array: str | None = None) -> Source:
    """One array of a `.npy`, `.npz` or `.safetensors`.

    Args:
        path: The file.
        array: Which array, where the file has several.

    Raises:
        ImportingError: It cannot be read as one matrix.
    """
    name, matrix = open_matrix(path, array)
    return Source("dattri", [path], matrix, "train", {"array": name} if name else {})
