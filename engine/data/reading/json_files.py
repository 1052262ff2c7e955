"""JSON: lines, lists of rows, lists by column, and any of these by split."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from engine.data.reading.rows import in_scratch
from engine.data.reading.texts import ROWS_AT_ONCE, not_unicode, opened_text
from engine.store.errors import DataError

Row = dict[str, Any]
_INT64: Final = range(-(2**63), 2**63)


def read_json(
    files: Sequence[Path], scratch: Path, splits: Sequence[str]
) -> tuple[pa.Table, list[str]]:
    """Read files of one split, or of several (keyed by split: a column `split` says which).

    A column has one type: texts, whole numbers, numbers, true/false or nested values; where types
    are mixed, all become text, as the file writes them.

    Returns:
        The rows of all files, and notes.

    Raises:
        DataError: A line is not JSON, or not an object.
    """

    def rows() -> Iterator[Row]:
        for file in files:
            yield from _rows_of(file, splits)

    columns: dict[str, _Column] = {}
    for batch in _batches(rows()):
        for name in dict.fromkeys(key for row in batch for key in row):
            columns.setdefault(name, _Column()).see([row.get(name) for row in batch])
    if not columns:
        raise DataError(f"{files[0]} is empty: it has no rows.")
    schema = pa.schema([(name, column.type()) for name, column in columns.items()])
    notes = [
        f"The column {name!r} holds texts and other values ({column.example()}); all are read as "
        "text."
        for name, column in columns.items()
        if column.mixed
    ]

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in _batches(rows()):
            arrays = [
                pa.array([column.value(row.get(name)) for row in batch], column.type())
                for name, column in columns.items()
            ]
            yield pa.record_batch(arrays, schema=schema)

    return in_scratch(schema, batches(), scratch), notes


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
        yield batch


# --- rows ---------------------------------------------------------------------------------------


def _rows_of(path: Path, splits: Sequence[str]) -> Iterator[Row]:
    """Rows of a file: one a line, or those of the one value that the file holds."""
    try:
        with opened_text(path) as text:
            first = next((line for line in text if line.strip()), "")
            one_line = not any(line.strip() for line in text)
        try:
            start = json.loads(first)
            lines = isinstance(start, dict) and not (one_line and _holds_rows(start, splits))
        except ValueError:
            lines = False
            if not first.lstrip().startswith(("[", "{")):
                raise
        if lines:
            yield from _rows_of_lines(path)
        else:
            with opened_text(path) as text:
                yield from _rows_of_value(json.load(text), path, splits)
    except UnicodeDecodeError as error:
        raise not_unicode(path, error) from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as json: {reason}.") from error


def _rows_of_lines(path: Path) -> Iterator[Row]:
    with opened_text(path) as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path} cannot be read as json: line {number} is not a whole value ({error})."
                ) from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{path} cannot be read as json: line {number} is not an object "
                    '({"column": value, ...}).'
                )
            yield row


def _holds_rows(value: Row, splits: Sequence[str]) -> bool:
    """Whether an object is not one row, but holds the rows: by split, by column or under a key."""
    return _by_split(value, splits) or _is_rows(_only_value(value)) or _is_columns(value)


def _rows_of_value(value: Any, path: Path, splits: Sequence[str]) -> Iterator[Row]:
    if _by_split(value, splits):
        for name, rows in value.items():
            if _is_collection(rows):
                for row in _rows_of_value(rows, path, ()):
                    yield {**row, "split": name}
    elif isinstance(value, dict) and _is_rows(_only_value(value)):
        yield from _only_value(value)
    elif isinstance(value, dict) and _is_columns(value):
        columns = [
            list(cells.values()) if isinstance(cells, dict) else cells for cells in value.values()
        ]
        for cells in zip(*columns, strict=True):
            yield dict(zip(value, cells, strict=True))
    elif isinstance(value, dict):
        yield value
    elif _is_rows(value) or value == []:
        yield from value
    else:
        raise DataError(
            f"{path} cannot be read as json: it is not a list of objects "
            '([{"column": value, ...}, ...]).'
        )


def _by_split(value: Any, splits: Sequence[str]) -> bool:
    if not isinstance(value, dict) or not splits:
        return False
    return all(_is_collection(value.get(split)) for split in splits)


def _only_value(value: Row) -> Any:
    return next(iter(value.values())) if len(value) == 1 else None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(r, dict) for r in value)


def _is_columns(value: Any) -> bool:
    """Lists of one length, or (as pandas writes them) objects with the same row names."""
    if not isinstance(value, dict) or not value:
        return False
    columns = list(value.values())
    if all(isinstance(cells, list) for cells in columns):
        return len({len(cells) for cells in columns}) == 1
    return (
        all(isinstance(cells, dict) for cells in columns)
        and len({tuple(cells) for cells in columns}) == 1
        and len(columns) > 1
    )


def _is_collection(value: Any) -> bool:
    return _is_rows(value) or _is_columns(value)


# --- types --------------------------------------------------------------------------------------


class _Column:
    """What the values of a column that were seen so far are."""

    def __init__(self) -> None:
        self.kinds: dict[type, Any] = {}
        """Each kind of value, with an example."""
        self.nested: pa.DataType | None = None

    def see(self, values: list[Any]) -> None:
        for value in values:
            kind = type(value)
            if kind is int and value not in _INT64:
                kind = str  # too long for a number of 64 bits
            if kind is not type(None) and kind not in self.kinds:
                self.kinds[kind] = value
        if self.kinds and set(self.kinds) <= {list, dict}:
            found = pa.field("", pa.infer_type(values))
            known = found if self.nested is None else pa.field("", self.nested)
            schemas = [pa.schema([known]), pa.schema([found])]
            self.nested = pa.unify_schemas(schemas, promote_options="permissive")[0].type

    @property
    def mixed(self) -> bool:
        return len(self.kinds) > 1 and set(self.kinds) != {int, float}

    def type(self) -> pa.DataType:
        kinds = set(self.kinds)
        if kinds == {int}:
            return pa.int64()
        if kinds and kinds <= {int, float}:
            return pa.float64()
        if kinds == {bool}:
            return pa.bool_()
        if kinds and kinds <= {list, dict} and len(kinds) == 1:
            return self.nested
        return pa.string()

    def value(self, value: Any) -> Any:
        """A value as this column stores it."""
        if value is None or isinstance(value, str) or not pa.types.is_string(self.type()):
            return value
        return json.dumps(value, ensure_ascii=False)

    def example(self) -> str:
        shown: Callable[[Any], str] = lambda v: json.dumps(v, ensure_ascii=False)[:40]  # noqa: E731
        return ", ".join(shown(value) for value in self.kinds.values())
