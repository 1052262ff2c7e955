"""Parquet, Arrow streams, Arrow files, Feather, and folders of `save_to_disk`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.data.reading.rows import in_scratch, joined
from engine.store.errors import DataError

STATE = "state.json"
"""In a folder that `Dataset.save_to_disk` wrote; it names the files with rows."""
SPLITS_FILE = "dataset_dict.json"
"""In a folder that `DatasetDict.save_to_disk` wrote; it names the splits."""


def read_parquet(files: Sequence[Path], scratch: Path) -> pa.Table:
    """The rows of Parquet files, in order."""
    tables = []
    for file in files:
        with file.open("rb") as source:
            parquet = pq.ParquetFile(source)
            schema = parquet.schema_arrow
            tables.append(in_scratch(schema, parquet.iter_batches(), scratch))
    return joined(tables, files)


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
