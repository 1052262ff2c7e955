"""A matrix of one's own: `.npy`, `.npz` or `.safetensors`. Its shape has to tell which axis is
which, or its user."""

from __future__ import annotations

from pathlib import Path

from engine.exchange.importing.matrix import open_matrix
from engine.exchange.importing.source import Source


def read(path: Path, array: str | None = None) -> Source:
    """One array of a file.

    Args:
        path: The file.
        array: Which array, where the file has several.

    Raises:
        ImportingError: It cannot be read as one matrix.
    """
    name, matrix = open_matrix(path, array)
    return Source(None, [path], matrix, None, {"array": name} if name else {})
