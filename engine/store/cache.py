"""What was read from files, kept in memory for as long as the files stay the same.

    _QUALITIES: FileCache[Quality] = FileCache(most=64)
    _QUALITIES.get(path, lambda: Quality.from_dict(read_json(path)))

A file is recognized by its stamp: time of the last change, size and inode. A file that changed a
moment ago may change again within the same tick of the clock, so nothing of it is kept yet.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from engine.store.files import read_table
from engine.store.walk import paths_in

Stamp = tuple[int, int, int] | None
"""Time of the last change in nanoseconds, size and inode; None where the file is missing."""
Stamps = tuple[tuple[str, Stamp], ...]
"""Paths and stamps of files."""
T = TypeVar("T")

SETTLED_NS = 2 * 10**9
"""How long ago a file must have changed; the coarsest file systems count in 2 seconds."""
MOST_TABLE_BYTES = 256 * 2**20


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file or folder as it is now."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def stamps_of(files: Iterable[Path]) -> Stamps:
    """The stamps of files as they are now, missing ones included: a key for what is made of them.

    List every file that is read. The key then changes with each of them.
    """
    return tuple((str(path), stamp_of(path)) for path in files)


def settled_stamp_of(path: Path) -> Stamp:
    """The stamp of a file that did not change a moment ago; None for every other."""
    stamp = stamp_of(path)
    return None if stamp is None or time.time_ns() - stamp[0] < SETTLED_NS else stamp


class FileCache(Generic[T]):
    """Values made from single files, the least recently used dropped first. Threads can share it.

    Values are shared between callers: never change one.
    """

    def __init__(self, most: int, size: Callable[[T], int] = lambda value: 1) -> None:
        """Make an empty cache.

        Args:
            most: The largest sum of sizes. A single value that is larger is not kept.
            size: Of a value; by default values are counted.
        """
        self._most, self._size = most, size
        self._values: OrderedDict[tuple[Path, Hashable], tuple[Stamp, T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, read: Callable[[], T], key: Hashable = None) -> T:
        """The value of a file as it is now; `read` makes it where none is kept."""
        stamp = settled_stamp_of(path)
        found = self.find(path, stamp, key)
        if found is None:
            found = read()
            self.keep(path, stamp, found, key)
        return found

    def find(self, path: Path, stamp: Stamp, key: Hashable = None) -> T | None:
        """The value kept for a file with this settled stamp."""
        with self._lock:
            kept = self._values.get((path, key))
            if stamp is None or kept is None or kept[0] != stamp:
                return None
            self._values.move_to_end((path, key))
            return kept[1]

    def keep(self, path: Path, stamp: Stamp, value: T, key: Hashable = None) -> None:
        """Keep a value that was read after the file had this settled stamp; nothing for None."""
        if stamp is None:
            return
        with self._lock:
            self._values.pop((path, key), None)
            if self._size(value) > self._most:
                return
            self._values[path, key] = stamp, value
            while sum(self._size(value) for _, value in self._values.values()) > self._most:
                self._values.popitem(last=False)

    def drop(self, path: Path, key: Hashable = None) -> None:
        """Forget the value of a file, if one is kept."""
        with self._lock:
            self._values.pop((path, key), None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


_TABLES: FileCache[pa.Table] = FileCache(MOST_TABLE_BYTES, lambda table: int(table.nbytes))
_COLUMNS: FileCache[tuple[str, ...]] = FileCache(most=512)
_FOLDERS: FileCache[tuple[str, ...]] = FileCache(most=512)


def read_cached_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Some columns of a Parquet table, all for None; each is read from disk once.

    Raises as `engine.store.files.read_table`.
    """
    stamp = settled_stamp_of(path)
    whole = _TABLES.find(path, stamp, "whole")
    if columns is None or whole is not None:
        if whole is None:
            whole = read_table(path)
            _TABLES.keep(path, stamp, whole, "whole")
            _TABLES.drop(path, "part")  # which it holds, too
        return whole if columns is None else whole.select(columns)
    known = _TABLES.find(path, stamp, "part")
    missing = [name for name in columns if known is None or name not in known.column_names]
    if known is None or missing:
        read = read_table(path, columns=missing)
        if known is not None:
            for name in known.column_names:
                read = read.append_column(name, known.column(name))
        _TABLES.keep(path, stamp, read, "part")
        known = read
    return known.select(columns)


def read_column_names(path: Path) -> tuple[str, ...]:
    """Names of the columns of a Parquet table.

    Raises:
        StoreError: It is missing or broken.
    """
    return _COLUMNS.get(path, lambda: _column_names(path))


def _column_names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return tuple(read_table(path).column_names)  # raises what is wrong


def list_names(folder: Path) -> tuple[str, ...]:
    """Names of what lies in a folder, sorted, without hidden ones; none where it is missing."""
    if stamp_of(folder) is None:
        return ()
    return _FOLDERS.get(folder, lambda: tuple(path.name for path in paths_in(folder, "[!.]*")))


def clear_caches() -> None:
    """Forget all tables and folders that were read."""
    _TABLES.clear()
    _COLUMNS.clear()
    _FOLDERS.clear()
