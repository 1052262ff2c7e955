"""Arrays that are stored in shards of rows and read as one."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.store.errors import StoreError


@dataclass(frozen=True)
class RowShards:
    """Arrays `[rows_i, width]` (float16 or float32) that together are one array `[rows, width]`."""

    parts: tuple[np.ndarray, ...]
    starts: tuple[int, ...]
    """First row of each part, and at the end the number of rows."""

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> RowShards:
        """Put arrays under each other. They must have two dimensions and the same width."""
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

        Pages of a mapped file are given back at once: a pass over all of it would else end with
        all of it counted as this process's memory.
        """
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            first, last = max(rows.start, start), min(rows.stop, start + len(part))
            if first < last:
                mine = slice(first - rows.start, last - rows.start)
                out[mine] = part[first - start : last - start, columns]
                _give_pages_back(part)
        return out

    def take(self, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy any rows to `out` as float32."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(shard):
            mine = shard == number
            out[mine] = self.parts[number][rows[mine] - self.starts[number]]
        return out

    def get(self, rows: np.ndarray | range, out: np.ndarray) -> np.ndarray:
        """`read` or `take`."""
        return self.read(rows, out) if isinstance(rows, range) else self.take(rows, out)


def _give_pages_back(array: np.ndarray) -> None:
    if isinstance(array, np.memmap) and array.mode == "r" and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
