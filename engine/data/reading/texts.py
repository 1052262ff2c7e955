"""Text of files: encodings, gzip, and the types that columns of text have.

A type is chosen after all cells were seen, never from the first ones: one `n/a` in row 20,001 makes
a column of text.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.compute as pc

from engine.store.errors import DataError

ROWS_AT_ONCE: Final = 10_000
_WHOLE: Final = r"^(0|-?[1-9][0-9]{0,17})$"
"""Whole numbers that are written as a computer writes them, so that no text is lost: not `0017`."""
_NUMBER: Final = (
    r"^([+-]?([0-9]{1,15}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity|nan))$"
)
_LEADING_ZERO: Final = r"^[+-]?0[0-9]"
_BOOLEAN: Final = r"^(?i:true|false)$"
_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def opened_text(path: Path) -> IO[str]:
    """Open a file of text, gzipped or not, in UTF-8 or with the mark of another Unicode encoding.

    Line ends stay as they are. Reading raises UnicodeDecodeError where it is of no such encoding.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    stream = gzip.open(path) if zipped else path.open("rb")  # noqa: SIM115
    start = stream.peek(4)[:4]
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    return io.TextIOWrapper(stream, encoding=encoding, newline="")


def not_unicode(path: Path, error: UnicodeDecodeError) -> DataError:
    """The error for a text of another encoding, such as Latin-1."""
    return DataError(
        f"{path} is not in UTF-8 (it holds the byte 0x{error.object[error.start]:02x}). "
        "Save it in UTF-8; guessing the encoding could change letters."
    )


class ColumnType:
    """What the cells of a column that were seen so far can be."""

    def __init__(self, as_written: bool) -> None:
        self.as_written = as_written
        """Whether only plain whole numbers are numbers: for labels and ids."""
        self.whole = self.number = self.boolean = True
        self.empty = True

    def see(self, cells: pa.Array) -> None:
        """Take in more cells (texts; null where empty)."""
        cells = cells.drop_null()
        if not len(cells):
            return
        self.empty = False
        self.whole = self.whole and _all_match(cells, _WHOLE)
        if self.as_written:
            return
        self.number = (
            self.number
            and _all_match(cells, _NUMBER)
            and not pc.any(pc.match_substring_regex(cells, _LEADING_ZERO)).as_py()
        )
        self.boolean = self.boolean and _all_match(cells, _BOOLEAN)

    @property
    def type(self) -> pa.DataType:
        if self.empty:
            return pa.string()
        if self.whole:
            return pa.int64()
        if not self.as_written and self.number:
            return pa.float64()
        return pa.bool_() if not self.as_written and self.boolean else pa.string()


def _all_match(cells: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(cells, pattern)).as_py())


def typed(table: pa.Table, types: list[ColumnType]) -> Iterator[pa.RecordBatch]:
    """The batches of a table of texts, each column in its type."""
    schema = typed_schema(table.schema.names, types)
    for batch in table.to_batches():
        yield pa.record_batch(
            [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)],
            schema=schema,
        )


def typed_schema(names: list[str], types: list[ColumnType]) -> pa.Schema:
    """The types of all columns, as far as their cells were seen."""
    return pa.schema([(name, kind.type) for name, kind in zip(names, types, strict=True)])
