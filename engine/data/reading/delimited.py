"""Tables of cells between commas, tabs, semicolons or bars, exactly as they are written."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa

from engine.data.reading.rows import in_scratch, other_columns
from engine.data.reading.texts import (
    ROWS_AT_ONCE,
    ColumnType,
    not_unicode,
    opened_text,
    typed,
    typed_schema,
)
from engine.store.errors import DataError

_DELIMITERS: Final = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_ROWS_TO_TRY: Final = 100
_LONGEST_CELL: Final = 2**31 - 1


def read_delimited(
    files: Sequence[Path], scratch: Path, as_written: frozenset[str]
) -> tuple[pa.Table, list[str]]:
    """Read files of one split.

    Only an empty cell is missing: "NA" and "None" are names that classes have. A column of plain
    whole numbers is int64; other numbers and true/false are typed, too, except in the columns named
    in `as_written`.

    Returns:
        The rows of all files, and notes.

    Raises:
        DataError: A line does not fit the header, or the text is damaged or of an unknown encoding.
    """
    readers = [_File(file) for file in files]
    names = readers[0].names
    for reader in readers[1:]:
        if sorted(reader.names) != sorted(names):
            raise other_columns(files[0], names, reader.path, reader.names)
    types = [ColumnType(bool({name, name.lower()} & as_written)) for name in names]
    texts = pa.schema([(name, pa.string()) for name in names])

    def batches() -> Iterator[pa.RecordBatch]:
        for reader in readers:
            places = [reader.names.index(name) for name in names]
            for cells in reader.rows():
                columns = [pa.array([row[i] or None for row in cells], pa.string()) for i in places]
                for kind, column in zip(types, columns, strict=True):
                    kind.see(column)
                yield pa.record_batch(columns, schema=texts)

    written = in_scratch(texts, batches(), scratch)
    notes = [note for reader in readers for note in reader.notes]
    return in_scratch(typed_schema(names, types), typed(written, types), scratch), notes


class _File:
    """One file: its columns, and how cells are separated and quoted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
        self.delimiter = self._find_delimiter()
        if self.delimiter == "\t" and not self._quotes_fit():
            self.quoting = csv.QUOTE_NONE
            self.notes.append(f"Quotation marks in {path.name} are text: they are not in pairs.")
        self.names = self._header()

    def rows(self) -> Iterator[list[list[str]]]:
        """Rows in batches, each as long as the header."""
        lines = self._lines()
        next(lines)
        while batch := list(itertools.islice(lines, ROWS_AT_ONCE)):
            yield [row for _, row in batch]

    def _lines(self, delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
        """(line number, cells) of the header and all rows; blank lines are skipped."""
        fields = 0
        with opened_text(self.path) as text, _long_cells():
            reader = csv.reader(
                text, delimiter=delimiter or self.delimiter, quoting=self.quoting, strict=True
            )
            try:
                for row in reader:
                    if not row:
                        continue
                    fields = fields or len(row)
                    if len(row) != fields and delimiter is None:
                        raise DataError(
                            f"{self.path} cannot be read as csv: line {reader.line_num} has "
                            f"{len(row)} cells, and the first line has {fields}. (Cells with "
                            "separators or line breaks need quotation marks.)"
                        )
                    yield reader.line_num, row
            except csv.Error as error:
                raise DataError(
                    f"{self.path} cannot be read as csv: line {reader.line_num}: {error}."
                ) from error
            except UnicodeDecodeError as error:
                raise not_unicode(self.path, error) from error

    def _find_delimiter(self) -> str:
        """The delimiter that the header has; of several, one that gives all rows as many cells."""
        with opened_text(self.path) as text:
            try:
                header = next((line for line in text if line.strip()), "")
            except UnicodeDecodeError as error:
                raise not_unicode(self.path, error) from error
        if "\0" in header:
            raise DataError(f"{self.path} cannot be read as csv: it is not text (or UTF-16).")
        in_header = [mark for mark in _DELIMITERS if mark in header]
        if len(in_header) > 1:
            in_header = [mark for mark in in_header if self._fits(mark)] or in_header[:1]
        found = in_header[0] if in_header else ","
        usual = (
            "\t" if self.path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")) else ","
        )
        if found != usual:
            self.notes.append(f"Cells of {self.path.name} are separated by {_DELIMITERS[found]}.")
        return found

    def _fits(self, delimiter: str) -> bool:
        try:
            first = list(itertools.islice(self._lines(delimiter), _ROWS_TO_TRY))
        except DataError:
            return False
        widths = {len(row) for _, row in first}
        return len(widths) == 1 and widths != {1}

    def _quotes_fit(self) -> bool:
        try:
            for _ in self._lines():
                pass
        except DataError:
            return False
        return True

    def _header(self) -> list[str]:
        lines = self._lines()
        _, header = next(lines, (0, []))
        lines.close()  # type: ignore[attr-defined]
        names = [name.strip() or f"Unnamed: {i}" for i, name in enumerate(header)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{self.path} has the column {twice[0]!r} twice; rename one of them.")
        if not names:
            raise DataError(f"{self.path} is empty: it has no rows.")
        return names


@contextmanager
def _long_cells() -> Iterator[None]:
    """Python's reader refuses cells of more than 128 KiB, which texts may well have."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
