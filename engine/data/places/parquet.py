"""Cells of Parquet files. A row group is read as a whole, and the last few are kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.store.cache import Stamp, stamp_of
from engine.store.errors import DataError

MOST_BYTES = 256 * 2**20
"""Of row groups in memory, beside the one that was read last."""
LARGEST_GROUP = 4 * 2**30
"""Bytes of pictures in one row group."""


def read_cell(file: str, group: int, row: int, column: str) -> bytes:
    """The bytes in one cell.

    Args:
        row: Within the row group.
        column: A leaf, such as `image.bytes`.

    Raises:
        DataError: The file is damaged, or has no such cell.
        OSError: It cannot be read.
    """
    cells = _GROUPS.get(file, group, column)
    if row >= len(cells):
        raise DataError(f"{file}: row group {group} has no row {row}; the file has changed.")
    value = cells[row].as_py()
    if not value:
        raise DataError(f"{file}: row {row} of row group {group} holds no picture.")
    return bytes(value)


class _Groups:
    """The row groups that were read last. Threads share it, and one of them reads a group."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, str], tuple[Stamp, pa.Array]] = OrderedDict()
        self._reading: dict[tuple[str, int, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, file: str, group: int, column: str) -> pa.Array:
        key, stamp = (file, group, column), stamp_of(Path(file))
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None and kept[0] == stamp:
                    self._kept.move_to_end(key)
                    return kept[1]
            cells = _read_group(file, group, column)
            with self._lock:
                self._kept[key] = stamp, cells
                while len(self._kept) > 1 and self._bytes() > MOST_BYTES:
                    old, _ = self._kept.popitem(last=False)
                    self._reading.pop(old, None)
            return cells

    def _bytes(self) -> int:
        return sum(int(cells.nbytes) for _, cells in self._kept.values())


_GROUPS = _Groups()


def _read_group(file: str, group: int, column: str) -> pa.Array:
    with Path(file).open("rb") as source:
        try:
            parquet = pq.ParquetFile(source)
            if group >= parquet.num_row_groups:
                raise DataError(f"{file} has no row group {group}; the file has changed.")
            _check_size(file, parquet, group, column)
            cells = parquet.read_row_group(group, columns=[column]).column(0).combine_chunks()
        except pa.ArrowException as error:
            raise DataError(f"{file} is damaged: {str(error).splitlines()[0]}") from error
    for name in column.split(".")[1:]:
        cells = cells.field(name)
    return cells


def _check_size(file: str, parquet: pq.ParquetFile, group: int, column: str) -> None:
    """Refuse a row group that would not fit into memory once decompressed."""
    about = parquet.metadata.row_group(group)
    parts = [about.column(number) for number in range(about.num_columns)]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == column)
    if size > LARGEST_GROUP:
        raise DataError(
            f"{file}: row group {group} holds {size / 2**30:.1f} GiB of pictures, which are read "
            f"at once. Write it with row groups of at most {LARGEST_GROUP // 2**30} GiB."
        )
