"""Arrays that are stored in shards of rows and read as one."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.attribution.scores.packed_rows import PackedRows
from engine.store.errors import StoreError

Rows = np.ndarray | PackedRows


@dataclass(frozen=True)
class RowShards:
    """Arrays `[rows_i, width]` (float16, float32 or packed) that together are one array
    `[rows, width]`."""

    parts: tuple[Rows, ...]
    starts: tuple[int, ...]
    """First row of each part, and at the end the number of rows."""

    @classmethod
    def of(cls, arrays: Sequence[Rows]) -> RowShards:
        """Stack arrays on top of each other. They must be two-dimensional and equally wide.

        Raises:
            StoreError: Their shapes do not fit together.
        """
        parts = tuple(arrays)
        if len({part.shape[1:] for part in parts}) != 1 or parts[0].ndim != 2:
            raise StoreError(
                f"Shards of shapes {[part.shape for part in parts]} do not fit together."
            )
        return cls(parts, tuple(itertools.accumulate((len(part) for part in parts), initial=0)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.starts[-1], self.parts[0].shape[1]

    def read(self, rows: range, out: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Copy consecutive rows, or some columns of them, to `out` as float32.

        Pages of a memory-mapped file are released at once. Otherwise a pass over the whole file
        would leave all of it counted as this process's memory.
        """
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            first, last = max(rows.start, start), min(rows.stop, start + len(part))
            if first < last:
                mine = slice(first - rows.start, last - rows.start)
                out[mine] = part[first - start : last - start, columns]
                _release_pages(part)
        return out

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy rows in any order to `out` as float32."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(shard):
            mine = shard == number
            out[mine] = self.parts[number][rows[mine] - self.starts[number]]
        return out

    def get(self, rows: np.ndarray | range, out: np.ndarray) -> np.ndarray:
        """`read` for a range of rows, `take` for an array of row numbers."""
        return self.read(rows, out) if isinstance(rows, range) else self.take(rows, out)


def _release_pages(array: Rows) -> None:
    if isinstance(array, PackedRows):
        _release_pages(array.numbers)
        _release_pages(array.scales)
    elif isinstance(array, np.memmap) and array.mode == "r" and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
