"""Headers of a split's pictures: read one by one, or found by a survey of the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.data.pictures import Header, read_header

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

HEADER = "dataloupe.header"
"""Column of headers that a survey has read, beside the columns of `Source.train`."""
_AT_ONCE = 4096


def with_headers(rows: datasets.Dataset, headers: pa.StructArray) -> datasets.Dataset:
    """The rows with the headers of their pictures: structs of `width`, `height`, `grayscale` and
    `deep`."""
    if HEADER in rows.column_names:
        rows = rows.remove_columns(HEADER)
    return rows.add_column(HEADER, headers)


def headers_of(rows: datasets.Dataset) -> Iterator[tuple[str, Header]]:
    """(id, header) of each row.

    Args:
        rows: With the columns `input` and `id`.

    Raises:
        DataError: A picture cannot be read.
    """
    if HEADER in rows.column_names:
        for batch in rows.select_columns(["id", HEADER]).with_format("arrow").iter(_AT_ONCE):
            found = batch[HEADER].combine_chunks().flatten()
            ids = batch["id"].to_pylist()
            columns = (column.to_pylist() for column in found)
            for id_, width, height, grayscale, deep in zip(ids, *columns, strict=True):
                yield id_, Header((width, height), grayscale, deep)
        return
    for chunk in rows.select_columns(["input", "id"]).iter(256):
        for content, id_ in zip(chunk["input"], chunk["id"], strict=True):
            yield id_, read_header(content, f"example {id_!r}")
