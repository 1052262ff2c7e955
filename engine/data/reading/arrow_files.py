"""Parquet, Arrow streams, Arrow files, Feather, and folders of `save_to_disk`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from engine.data.places.place import in_cell_bytes, in_parquet
from engine.data.reading.rows import in_scratch, joined
from engine.store.errors import DataError

_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
STATE = "state.json"
"""In a folder that `Dataset.save_to_disk` wrote; it names the files with rows."""
SPLITS_FILE = "dataset_dict.json"
"""In a folder that `DatasetDict.save_to_disk` wrote; it names the splits."""


MOST_COPIED = 2 * 2**30
"""Bytes of encoded pictures above which their places are read, unless study.toml decides."""


def read_parquet(
    files: Sequence[Path], scratch: Path, pictures: Literal["auto", "copy", "reference"] = "copy"
) -> pa.Table:
    """The rows of Parquet files, in order.

    Args:
        pictures: `copy` reads encoded pictures, `reference` only where each lies; `auto` the latter
            where they take more than 2 GiB.
    """
    tables = []
    with contextlib.ExitStack() as stack:
        opened = [pq.ParquetFile(stack.enter_context(file.open("rb"))) for file in files]
        encoded = sum(map(_bytes_of_pictures, opened))
        placed = pictures == "reference" or (pictures == "auto" and encoded > MOST_COPIED)
        for file, parquet in zip(files, opened, strict=True):
            if placed and encoded:
                tables.append(_with_places(file, parquet, scratch))
            else:
                tables.append(in_scratch(parquet.schema_arrow, parquet.iter_batches(), scratch))
    return joined(tables, files)


def _leaf(field: pa.Field) -> str | None:
    """The leaf that holds encoded pictures, in a column of them: bytes, or bytes and a path."""
    if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        return str(field.name)
    is_struct = pa.types.is_struct(field.type)
    if is_struct and {one.name for one in field.type} == {"bytes", "path"}:
        return f"{field.name}.bytes"
    return None


def _bytes_of_pictures(parquet: pq.ParquetFile) -> int:
    leaves = {_leaf(field) for field in parquet.schema_arrow}
    about = parquet.metadata
    chunks = (
        about.row_group(group).column(column)
        for group in range(about.num_row_groups)
        for column in range(about.num_columns)
    )
    return sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema in leaves)


def _byte_ranges(
    file: Path, parquet: pq.ParquetFile, group: int, leaf: str
) -> list[tuple[int, int] | None]:
    """Where the cells of a row group lie in the file, as (offset, size); None if compressed.

    Row groups of pictures have a hundred megabytes. Read whole for each picture of a shuffled
    epoch, they would take thirty times as long as decoding it. Cells lie in the order of their
    rows, but for equal ones in a dictionary.
    """
    about = parquet.metadata.row_group(group)
    chunks = {about.column(i).path_in_schema: about.column(i) for i in range(about.num_columns)}
    chunk = chunks[leaf]
    if chunk.compression != "UNCOMPRESSED":
        return [None] * about.num_rows
    start = min(
        offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset
    )
    with file.open("rb") as content:
        content.seek(start)
        raw = content.read(chunk.total_compressed_size)
    cells = parquet.read_row_group(group, [leaf]).column(0).combine_chunks()
    for name in leaf.split(".")[1:]:
        cells = cells.field(name)
    found: list[tuple[int, int] | None] = []
    after = 0
    for cell in cells:
        value = cell.as_py()
        place = raw.find(value, after) if value else -1
        place = raw.find(value) if value and place < 0 else place
        found.append((start + place, len(value)) if place >= 0 else None)
        after = place + len(value) if place >= 0 else after
    return found


def _with_places(file: Path, parquet: pq.ParquetFile, scratch: Path) -> pa.Table:
    """The rows of a Parquet file, with the places of its pictures instead of their bytes."""
    schema = parquet.schema_arrow
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field)) is not None}
    structs = {name for name, leaf in leaves.items() if leaf != name}
    kept = [field.name for field in schema if field.name not in leaves]
    placed = schema
    for name in leaves:
        place = schema.get_field_index(name)
        placed = placed.set(place, pa.field(name, _PICTURE, metadata=schema.field(place).metadata))

    def batches() -> Iterator[pa.RecordBatch]:
        for group in range(parquet.num_row_groups):
            read = parquet.read_row_group(group, [*kept, *(f"{name}.path" for name in structs)])
            columns = {}
            for name, leaf in leaves.items():
                rows = parquet.metadata.row_group(group).num_rows
                names = [None] * rows
                if name in structs:
                    names = read[name].combine_chunks().field("path").to_pylist()
                places = [
                    in_cell_bytes(str(file), *found, own or "")
                    if found is not None
                    else in_parquet(str(file), group, row, leaf, own or "")
                    for row, (found, own) in enumerate(
                        zip(_byte_ranges(file, parquet, group, leaf), names, strict=True)
                    )
                ]
                columns[name] = pa.StructArray.from_arrays(
                    [pa.nulls(rows, pa.binary()), pa.array(places, pa.string())],
                    fields=list(_PICTURE),
                )
            whole = {field.name: columns.get(field.name) for field in placed}
            for name in kept:
                whole[name] = read[name].combine_chunks()
            yield from pa.table(list(whole.values()), schema=placed).to_batches()

    return in_scratch(placed, batches(), scratch)


def read_arrow(files: Sequence[Path]) -> pa.Table:
    """The rows of Arrow streams or Arrow files (Feather version 2 is one), in order."""
    return joined([_mapped(file) for file in files], files)


def _mapped(file: Path) -> pa.Table:
    source = pa.memory_map(str(file))
    start = source.read(6)
    source.seek(0)
    if start.startswith(b"FEA1"):
        raise DataError(
            f"{file} is of the first version of Feather, which is no longer read. Write it again: "
            "pyarrow.feather.write_feather(table, path)."
        )
    opened = pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream
    return opened(source).read_all()


# --- save_to_disk ---------------------------------------------------------------------------------


def saved_splits(folder: Path) -> list[str] | None:
    """Names of the splits that `DatasetDict.save_to_disk` wrote here; None if it did not."""
    path = folder / SPLITS_FILE
    return [str(name) for name in _json(path, "splits")] if path.is_file() else None


def read_saved(folder: Path) -> pa.Table:
    """The rows that `Dataset.save_to_disk` wrote into a folder: those of the files it names.

    Other `.arrow` files there are caches of `.map` and `.filter`.
    """
    state = folder / STATE
    files = [folder / str(entry["filename"]) for entry in _json(state, "_data_files")]
    missing = next((file for file in files if not file.is_file()), None)
    if not files or missing is not None:
        raise DataError(f"{state} names {missing or 'no files'}, which does not exist.")
    table = read_arrow(files)
    chosen = _json(state, "_indices_data_files", [])
    if chosen:  # written by older versions, whose `select` and `shuffle` keep a list of rows
        rows = read_arrow([folder / str(entry["filename"]) for entry in chosen])
        table = table.take(rows.column(0))
    return table


def _json(path: Path, key: str, default: Any = None) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get(key) or default
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {str(error).splitlines()[0]}.") from error
    if found is None:
        raise DataError(f"{path} is damaged: it has no {key!r}.")
    return found
