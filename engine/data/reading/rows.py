"""Rows of a split, and the scratch files behind them: Arrow batches become one memory-mapped table.

Libraries never get a path that a user named: some of them take it for a pattern or a URL. Files are
opened here, by name, and only open files are handed on.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from engine.store.errors import DataError


@dataclass(frozen=True)
class Rows:
    """A split as its source has it.

    Attributes:
        table: Its columns, undecoded.
        folder: Where relative paths in it start.
        notes: What was chosen for the user, or left out; one sentence each.
    """

    table: datasets.Dataset
    folder: Path
    notes: tuple[str, ...] = ()

    def noting(self, *notes: str) -> Rows:
        """The same rows with more notes in front."""
        return replace(self, notes=(*notes, *self.notes))


def no_split(where: Path | str, name: str, found: Sequence[str]) -> DataError:
    """The error for a split that a source does not have."""
    shown = [*found[:8], "..."] if len(found) > 8 else found
    return DataError(
        f"{where} has no split {name!r}; it has {', '.join(shown) or 'nothing'}. "
        "Name its splits as `train` and `test` under [data]."
    )


def other_columns(
    first: Path, names: Sequence[str], other: Path, others: Sequence[str]
) -> DataError:
    """The error for two files of one split with different columns."""
    return DataError(
        f"{first} has the columns {', '.join(names)}, and {other} has {', '.join(others)}: they "
        "are not parts of one split. Name the right file as `train` or `test` under [data]."
    )


def shown(files: Sequence[Path]) -> str:
    """Files, for errors."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def in_scratch(schema: pa.Schema, batches: Iterable[pa.RecordBatch], scratch: Path) -> pa.Table:
    """The batches as a table that is mapped from a new file in `scratch`, not held in memory."""
    path = scratch / f"{uuid.uuid4().hex}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _plain(schema)) as writer:
        for batch in batches:
            columns = [
                column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                for column in batch.columns
            ]
            writer.write_batch(pa.record_batch(columns, schema=_plain(schema)))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with the values of dictionaries (pandas' categories) instead of these."""
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(place, field.with_type(field.type.value_type))
    return schema


def joined(tables: Sequence[pa.Table], files: Sequence[Path]) -> pa.Table:
    """The files of one split as one table.

    Raises:
        DataError: Their columns, the types of these or their classes differ.
    """
    first = tables[0]
    for table, file in zip(tables[1:], files[1:], strict=True):
        if set(table.column_names) != set(first.column_names):
            raise other_columns(files[0], first.column_names, file, table.column_names)
        if class_lists(table.schema) != class_lists(first.schema):
            raise DataError(f"{files[0]} and {file} number their classes differently.")
    try:
        return pa.concat_tables(
            [table.select(first.column_names) for table in tables], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise DataError(
            f"{shown(files)} have columns of different types: {str(error).splitlines()[0]}"
        ) from error


def class_lists(schema: pa.Schema) -> dict[str, list[str]]:
    """Columns that the Hugging Face library marks as numbered classes, with the classes."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    features = datasets.Features.from_arrow_schema(schema)
    return {
        name: list(feature.names)
        for name, feature in features.items()
        if isinstance(feature, datasets.ClassLabel)
    }


def as_dataset(table: pa.Table) -> datasets.Dataset:
    """The table as a Hugging Face dataset."""
    for place, field in enumerate(_plain(table.schema)):
        if field.type != table.schema.field(place).type:
            table = table.set_column(place, field, table.column(place).cast(field.type))
    # With a name of its own, the library does not pickle the whole table to find one.
    return datasets.Dataset(InMemoryTable(table), fingerprint=uuid.uuid4().hex)
