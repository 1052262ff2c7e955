"""Ids as text, exactly as their source writes them: `0017` stays `0017`.

Readers of tables guess the types of columns, which makes 17 of `0017` and a time of `2020-01-01`.
So a column of ids is read without guessing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from engine.store.errors import DataError
from engine.store.records import default_id


def cell_text(cell: str) -> str | None:
    """What a cell of a CSV's column of ids holds; None where it is empty."""
    return cell or None


def with_json_ids(table: datasets.Dataset, files: Sequence[Path], column: str) -> datasets.Dataset:
    """A table read from JSON whose ids are what the files say, read again where they were guessed.

    Raises:
        DataError: An id is neither a text nor a whole number.
    """
    feature = table.features.get(column)
    guessed = getattr(feature, "dtype", "")
    if feature is None or guessed in ("string", "large_string") or "int" in str(guessed):
        return table
    ids = [_json_id(row.get(column), column) for file in files for row in _json_rows(file)]
    return table.remove_columns(column).add_column(column, pa.array(ids, pa.string()))


def _json_rows(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    try:
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError:
        found = json.loads(text)
    if len(found) == 1 and isinstance(found[0], list):  # a list that fills one line
        found = found[0]
    return list(found)


def _json_id(value: Any, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(
            f"Column {column!r} holds {value!r}, which is not an id; texts and whole numbers are."
        )
    return str(value)


def read_ids(column: pa.ChunkedArray | None, split: str, name: str | None, rows: int) -> list[str]:
    """The ids of a split; those that Dataloupe makes where the source has no column of them.

    Raises:
        DataError: One is missing, or is neither a text nor a whole number.
    """
    if column is None:
        return [default_id(split, row) for row in range(rows)]
    try:
        # A whole number that may be missing is stored as a float by pandas.
        whole = pc.cast(column, pa.int64()) if pa.types.is_floating(column.type) else column
        ids = list(pc.cast(whole, pa.string()).to_pylist())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"Column {name!r} holds {column.type}, which is not an id; texts and whole numbers are."
        ) from error
    missing = next((row for row, id_ in enumerate(ids) if not id_), None)
    if missing is not None:
        raise DataError(f"Row {missing} of the {split} split has no id (column {name!r}).")
    return ids
