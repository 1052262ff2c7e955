"""Row shards read as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ShardedRows:
    """Row shards as one array, of which `[row]`, `[slice]` or `[rows]` copies just those rows.

    So the memory that training and featurising take does not grow with the dataset.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self._shards)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, int):
            one: np.ndarray = self[np.array([rows])][0]
            return one
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        first = self._shards[0]
        found = np.empty((len(numbers), *first.shape[1:]), first.dtype)
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            found[mine] = self._shards[owner][numbers[mine] - self._starts[owner]]
        return found
