"""Working memory for passes over the score matrix: the size of a block, and scratch arrays.

A block has at most `MAX_BLOCK_ROWS` training rows however much memory there is. So rounding, and
with it the bytes of what is stored, is the same on a machine with more memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_BLOCK_ROWS = 4096
TESTS_PER_TILE = 1024
"""The most test examples of a tile of τ. BLAS is as fast as with more, and a tile stays small."""
WORKING_BYTES = 2**28
"""Memory for temporary arrays where the caller sets no limit: 256 MiB."""


def block_rows(memory_bytes: int, bytes_per_row: int) -> int:
    """Rows of a block: the largest power of two that fits, from 1 to `MAX_BLOCK_ROWS`."""
    fitting = max(1, memory_bytes // max(1, bytes_per_row))
    return min(MAX_BLOCK_ROWS, 1 << (fitting.bit_length() - 1))


class Workspace:
    """Named scratch arrays that are reused.

    Allocating large arrays anew costs more than multiplying them (page faults: 42 GFLOP/s
    measured instead of 150).
    """

    def __init__(self) -> None:
        self._flat: dict[str, np.ndarray] = {}

    def __call__(self, name: str, shape: tuple[int, int], dtype: Any = np.float32) -> np.ndarray:
        size = shape[0] * shape[1]
        if name not in self._flat or self._flat[name].size < size:
            self._flat[name] = np.empty(size, dtype)
        return self._flat[name][:size].reshape(shape)
