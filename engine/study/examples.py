"""The examples of a study: arrays, table columns and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine import store
from engine.data.fitting import as_picture
from engine.store import layout
from engine.store.cache import read_cached_table, read_column_names
from engine.store.errors import StoreError
from engine.store.layout import ROWS_PER_SHARD, Split
from engine.store.rows import ranges
from engine.store.sharded_rows import ShardedRows
from engine.study.reader import StudyReader, read_table
from engine.study.references import has_references, referenced_pictures

if TYPE_CHECKING:
    from PIL.Image import Image


def shard_count(study: StudyReader, split: Split) -> int:
    """Number of row shards of a split."""
    return -(-study.dataset.rows(split) // ROWS_PER_SHARD)


def read_arrays(study: StudyReader, split: Split, verify: bool = False) -> list[dict[str, Any]]:
    """Memory-mapped arrays of a split, one dict per row shard.

    Pictures that are kept by reference are an array that decodes them.
    """
    shards: list[dict[str, Any]] = [
        dict(store.read_tensors(layout.arrays_file(study.root, split, shard), verify=verify))
        for shard in range(shard_count(study, split))
    ]
    if has_references(study):
        for number, rows in enumerate(ranges(range(study.dataset.rows(split)), ROWS_PER_SHARD)):
            shards[number]["input"] = referenced_pictures(study, split, rows)
    return shards


def read_columns(study: StudyReader, split: Split, columns: list[str]) -> pa.Table:
    """Some columns of a split's table."""
    return read_table(study.root, split, study.dataset.rows(split), columns)


def by_shard(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The shards that hold these rows: number of each, the places in `rows` of those that it holds,
    and where they lie within the shard."""
    shards = rows // ROWS_PER_SHARD
    for shard in np.unique(shards).tolist():
        places = np.flatnonzero(shards == shard)
        yield shard, places, rows[places] % ROWS_PER_SHARD


FILE, TEXT = "file", "text"
"""Columns that pictures and texts have, in a study of this version."""


def read_column(study: StudyReader, split: Split, name: str) -> pa.ChunkedArray | None:
    """A column of a split's table; None if the table has no such column."""
    first = layout.table_file(study.root, split, 0)
    if name not in read_column_names(first):
        return None
    return read_columns(study, split, [name])[name]


def read_texts_of(
    study: StudyReader, split: Split, name: str, rows: Sequence[int] | np.ndarray
) -> list[str | None]:
    """`file` or `text` of some examples; None where there is none."""
    wanted = np.asarray(rows, np.int64)
    found: list[str | None] = [None] * len(wanted)
    for shard, places, within in by_shard(wanted):
        path = layout.table_file(study.root, split, shard)
        if name not in read_column_names(path):
            continue
        column = read_cached_table(path, [name])[name]
        for place, row in zip(places.tolist(), within.tolist(), strict=True):
            value = column[row].as_py()
            found[place] = None if value is None else str(value)
    return found


def size_of_pictures(study: StudyReader) -> tuple[int, int] | None:
    """(width, height) of the pictures as the models read them; None if thumbnails show as much."""
    shape = study.dataset.encoding.get("shape")
    if not study.dataset.cell or not isinstance(shape, list) or len(shape) != 3:
        return None
    channels, height, width = shape
    larger = channels in (1, 3) and max(height, width) > study.dataset.cell
    return (width, height) if larger else None


def read_picture(study: StudyReader, split: Split, row: int) -> Image:
    """One example's picture as the models read it: mode `L` or `RGB`, of `size_of_pictures`.

    Raises:
        StoreError: The study stores no pictures larger than thumbnails.
    """
    if size_of_pictures(study) is None:
        raise StoreError(f"{study.root} stores no pictures larger than thumbnails.")
    if has_references(study):
        pixels = referenced_pictures(study, split)[row]
        return as_picture(pixels)
    shard, place = divmod(row, ROWS_PER_SHARD)
    pixels = store.read_tensors(layout.arrays_file(study.root, split, shard))["input"][place]
    return as_picture(pixels)


def read_stacked_arrays(study: StudyReader, split: Split) -> dict[str, Any]:
    """The arrays of a whole split, read from disk only for the rows that are indexed."""
    shards = read_arrays(study, split)
    if len(shards) == 1:
        return shards[0]
    whole: dict[str, Any] = {
        name: ShardedRows([shard[name] for shard in shards]) for name in shards[0]
    }
    if has_references(study):  # one array, which decodes ahead across shards
        whole["input"] = referenced_pictures(study, split)
    return whole
