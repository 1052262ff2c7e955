"""Read any score matrix in a `.npy`, `.npz` or `.safetensors` file.

The shape must show which axis is which, unless the user specifies it.
"""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_matrix
from engine.exchange.importing.source import Source


def read(path: Path, array: str | None = None) -> Source:
    """Read one array of a file.

    Args:
        path: The file.
        array: Name of the array, if the file has several.

    Raises:
        ImportingError: The file cannot be read, or it is not clear which array is meant.
    """
    name, matrix = open_matrix(path, array)
    return Source(None, [path], matrix, None, {"array": name} if name else {})
