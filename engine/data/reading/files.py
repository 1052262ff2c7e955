"""Files of rows: which formats there are, and how each is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from datasets.utils.logging import CRITICAL, get_verbosity, set_verbosity

from engine.data.reading.arrow_files import read_arrow, read_parquet
from engine.data.reading.delimited import read_delimited
from engine.data.reading.json_files import read_json
from engine.data.reading.rows import Rows, as_dataset, shown
from engine.store.errors import DataError

_FORMATS: Final = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
"""By suffix, in any case; .gz may follow those of texts."""
KNOWN_SUFFIXES: Final = (*_FORMATS, ".csv.gz", ".tsv.gz", ".json.gz", ".jsonl.gz", ".npz")


@dataclass(frozen=True)
class Reading:
    """What readers have to know.

    Attributes:
        splits: Names of the training and the test split.
        as_written: Columns of labels and ids, whose texts stay as files write them.
        scratch: An empty folder; what cannot be memory-mapped is converted into it.
        pictures: As `DataSpec.pictures`.
    """

    splits: tuple[str, str]
    as_written: frozenset[str]
    scratch: Path
    pictures: Literal["auto", "copy", "reference"] = "copy"


def name_and_format(path: Path) -> tuple[str, str] | None:
    """(name without suffixes, format); None for a file that holds no rows."""
    name = path.name
    zipped = name.lower().endswith(".gz")
    inner = Path(name[:-3] if zipped else name)
    found = _FORMATS.get(inner.suffix.lower())
    if found is None or (zipped and found not in ("csv", "json")):
        return None
    return inner.stem, found


def read_files(files: Sequence[Path], reading: Reading) -> Rows:
    """Read the files of one split, or of both, all of one format; their rows in this order.

    Raises:
        DataError: A file is empty or damaged, or they do not fit together.
    """
    known = name_and_format(files[0])
    assert known is not None
    empty = next((file for file in files if file.stat().st_size == 0), None)
    if empty is not None:
        raise DataError(f"{empty} is empty.")
    notes: list[str] = []
    try:
        with quiet():
            if known[1] == "parquet":
                table = read_parquet(files, reading.scratch, reading.pictures)
            elif known[1] == "arrow":
                table = read_arrow(files)
            elif known[1] == "csv":
                table, notes = read_delimited(files, reading.scratch, reading.as_written)
            else:
                table, notes = read_json(files, reading.scratch, reading.splits)
            return rows_of(table, files, tuple(notes))
    except DataError:
        raise
    except Exception as error:  # readers of five formats raise what they like on a broken file
        raise _unreadable(files, known[1], error) from error


def rows_of(table: pa.Table, files: Sequence[Path], notes: tuple[str, ...] = ()) -> Rows:
    """A table as rows, whose relative paths start beside its first file."""
    if not len(table):
        raise DataError(f"{files[0]} is empty: it has no rows.")
    return Rows(as_dataset(table), files[0].parent, notes)


def _unreadable(files: Sequence[Path], kind: str, error: Exception) -> DataError:
    reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return DataError(f"{shown(files)} cannot be read as {kind}: {reason[0]}")


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log lines: any error becomes one DataError."""
    were_disabled, verbosity = are_progress_bars_disabled(), get_verbosity()
    disable_progress_bars()
    set_verbosity(CRITICAL)
    try:
        yield
    finally:
        set_verbosity(verbosity)
        if not were_disabled:
            enable_progress_bars()
