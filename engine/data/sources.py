"""`[data]` of study.toml → two checked splits with named columns, common classes and unique ids.

    source = load_source(spec.data, base=study_folder)
    source.train[0]   # {"input": ..., "label": 3, "id": "train-0", ...}

Pictures stay undecoded (`{"bytes", "path"}`): the task decodes them, chunk by chunk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from engine.data.columns import (
    LABEL_NAMES,
    input_column,
    is_picture_column,
    label_columns,
    names_pictures,
)
from engine.data.file_names import (
    FILE,
    as_column,
    file_names,
    has_files,
    ids_are_files,
)
from engine.data.ids import read_ids
from engine.data.label_kinds import as_column as label_values
from engine.data.label_kinds import check_sample, read_labels_of_kind, strata
from engine.data.places.place import source_folder
from engine.data.reading import Rows, quiet, read_splits
from engine.data.sampling import sample_rows
from engine.store.errors import DataError
from engine.store.layout import SPLITS, Split
from engine.store.records import LabelKind
from engine.store.spec import DataSpec

SOURCE_ROW = "source_row"
"""Column of a sampled split: the row's number in the source's split, from 0."""


@dataclass(frozen=True)
class Source:
    """A checked dataset.

    Attributes:
        train: Columns `input`, `label` (a class number, a number, a list of class numbers, or an
            empty list for data without labels), `id` (text), for pictures `file` (text; missing for
            a picture without a file), then all other columns of the source.
        test: The same columns, as far as it has them.
        classes: Class names by label.
        description: One line for people.
        notes: What was chosen for the user, and what was not read, one sentence each.
        warnings: What is allowed but should be known.
    """

    train: datasets.Dataset
    test: datasets.Dataset
    classes: list[str]
    description: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def load_source(
    spec: DataSpec,
    base: Path,
    scratch: Path | None = None,
    seed: int = 0,
    kind: LabelKind = "class",
) -> Source:
    """Read and check a dataset. Pictures are checked only when they are encoded.

    Args:
        spec: `[data]` of the study.
        base: The study's folder; relative paths start there, and it must be trusted to name code.
        scratch: Folder for a memory-mapped copy of files that cannot be mapped directly (Parquet,
            CSV, JSON); None is the system's temporary folder. The copy ends with the process.
        seed: The study's, which draws the samples of `train_limit` and `test_limit`.
        kind: Kind of the labels.

    Raises:
        DataError: One line: what is wrong, in which row or file, what to do.
        UntrustedCode: The source is code that this machine's user has not trusted.
    """
    with tempfile.TemporaryDirectory(prefix="dataloupe-", dir=scratch) as folder:
        # Mapped files stay readable after the folder is deleted, so even a killed process leaves
        # no files behind.
        as_written: frozenset[str] = frozenset()
        if isinstance(spec.label, str):  # columns of 0 and 1 of several classes are typed
            as_written |= {*LABEL_NAMES[kind]} if spec.label == "auto" else {spec.label}
        as_written |= {spec.id} if spec.id is not None else set()
        train, test = read_splits(spec, base, Path(folder), as_written)
        with quiet():
            return _checked(train, test, spec, base, seed, kind)


def _checked(
    train: Rows, test: Rows, spec: DataSpec, base: Path, seed: int, kind: LabelKind
) -> Source:
    """The rows of a source with labels, samples and ids. Raises as `load_source`."""
    for rows, split in ((train, spec.train), (test, spec.test)):
        if not len(rows.table):
            raise DataError(f"The split {split!r} of {spec.source} is empty.")
    labeled, label_notes = label_columns(train.table, spec, kind)
    input_, input_notes = input_column(train, spec, labeled, kind)
    _require(train.table, spec.train, [input_, *labeled])
    _require(test.table, spec.test, [input_, *labeled])
    read = read_labels_of_kind(kind, train.table, test.table, labeled, spec.classes)
    whole = len(train.table), len(test.table)
    train, train_labels = _sampled(train, read.train, spec.train_limit, seed, "train")
    test, test_labels = _sampled(test, read.test, spec.test_limit, seed, "test")
    labels = train_labels, test_labels
    notes = dict.fromkeys([*train.notes, *test.notes, *label_notes, *input_notes])
    limit = None if len(train_labels) == whole[0] else spec.train_limit
    warnings = [*read.warnings, *check_sample(kind, *labels, read.classes, limit)]
    tables = [_with_pictures(rows, input_) for rows in (train, test)]
    start = source_folder(spec.source, base)
    files = [file_names(table, input_, start) for table in tables]
    ids = [
        _ids(rows.table, split, spec, input_, found)
        for rows, split, found in zip((train, test), SPLITS, files, strict=True)
    ]
    _refuse_duplicates(*ids)
    splits = [
        _named(table, input_, labeled, spec.id, numbers, names, found)
        for table, numbers, names, found in zip(tables, labels, ids, files, strict=True)
    ]
    of_classes = f"of {len(read.classes)} classes " if read.classes else ""
    description = (
        f"{len(splits[0]):,} training and {len(splits[1]):,} test examples "
        f"{of_classes}from {spec.source} (input: {input_}{_named_labels(labeled)})"
    )
    if (len(splits[0]), len(splits[1])) != whole:
        description += f", a stratified sample of its {whole[0]:,} and {whole[1]:,}"
    return Source(splits[0], splits[1], read.classes, description, tuple(notes), tuple(warnings))


def _sampled(
    rows: Rows, labels: np.ndarray, limit: int | None, seed: int, split: Split
) -> tuple[Rows, np.ndarray]:
    """Rows and labels of a sample; its column `source_row` says where each row comes from."""
    chosen = sample_rows(strata(labels), limit, seed, split)
    if len(chosen) == len(labels):
        return rows, labels
    table = rows.table.select(chosen)
    if SOURCE_ROW in table.column_names:
        table = table.rename_column(SOURCE_ROW, f"original_{SOURCE_ROW}")
    table = table.add_column(SOURCE_ROW, pa.array(chosen, pa.int64()))
    return replace(rows, table=table), labels[chosen]


def _require(table: datasets.Dataset, split: str, columns: Sequence[str | None]) -> None:
    for column in columns:
        if column is not None and column not in table.column_names:
            raise DataError(
                f"The split {split!r} has no column {column!r}; it has "
                f"{', '.join(table.column_names)}."
            )


# --- pictures, ids ------------------------------------------------------------------------------


def _with_pictures(rows: Rows, column: str) -> datasets.Dataset:
    """Make `column` an undecoded image column whose paths are absolute and exist.

    A column of texts that are not names of picture files stays as it is.
    """
    table, feature = rows.table, rows.table.features[column]
    for name, other in table.features.items():
        if name != column and isinstance(other, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    if is_picture_column(feature):
        table = table.cast_column(column, datasets.Image(decode=False))
        content = _column(table, column).combine_chunks()
        if not (content.field("bytes").null_count and len(content)):
            return table
        paths = content.field("path").filter(content.field("bytes").is_null())
        if all(path is None or Path(path).is_absolute() for path in paths.to_pylist()):
            return table
        files = content.field("path").to_pylist()
        contents = content.field("bytes")
    elif names_pictures(rows, column):
        files = _column(table, column).to_pylist()
        contents = pa.nulls(len(files), pa.binary())
    else:
        return table
    absolute = [None if file is None else str(rows.folder / file) for file in files]
    pictures = pa.StructArray.from_arrays(
        [contents, pa.array(absolute, pa.string())], names=["bytes", "path"]
    )
    return table.remove_columns(column).add_column(
        column, pictures, feature=datasets.Image(decode=False)
    )


def _column(table: datasets.Dataset, name: str) -> pa.ChunkedArray:
    return table.select_columns([name]).with_format("arrow")[:][name]


def _ids(
    table: datasets.Dataset,
    split: Split,
    spec: DataSpec,
    input_: str,
    files: Sequence[str | None] | None,
) -> list[str]:
    if files is not None and ids_are_files(table, spec.id, input_):
        return read_ids(as_column(files), split, FILE, len(table))
    _require(table, spec.train if split == "train" else spec.test, [spec.id])
    ids = None if spec.id is None else _column(table, spec.id)
    return read_ids(ids, split, spec.id, len(table))


def _refuse_duplicates(train: Sequence[str], test: Sequence[str]) -> None:
    if len({*train, *test}) == len(train) + len(test):
        return
    seen: dict[str, str] = {}
    for split, ids in (("training", train), ("test", test)):
        for row, id_ in enumerate(ids):
            place = f"row {row} of the {split} split"
            if id_ in seen:
                raise DataError(f"The id {id_!r} occurs twice: {seen[id_]} and {place}.")
            seen[id_] = place


def _named_labels(columns: Sequence[str], most: int = 5) -> str:
    if not columns:
        return ""
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return f", label: {', '.join(columns[:most])}{more}"


def _named(
    table: datasets.Dataset,
    input_: str,
    labeled: Sequence[str],
    id_: str | None,
    labels: np.ndarray,
    ids: Sequence[str],
    files: Sequence[str | None] | None,
) -> datasets.Dataset:
    """`input`, `label`, `id`, for pictures `file`, then all others.

    Other columns of these names get `original_` before it. A column `file` of the source stays
    where the pictures have no files of their own.
    """
    rest = [name for name in table.column_names if name not in (input_, *labeled, id_)]
    own_files = files is not None and (has_files(files) or FILE not in rest)
    named = ("input", "label", "id", *([FILE] if own_files else []))
    table = table.select_columns([input_, *rest])
    clashing = {name: f"original_{name}" for name in rest if name in named}
    while taken := set(clashing.values()) & set(rest):
        clashing |= {name: f"original_{to}" for name, to in clashing.items() if to in taken}
    if input_ != "input":
        clashing = {**clashing, input_: "input"}
    table = table.rename_columns(clashing) if clashing else table
    table = table.add_column("label", label_values(labels))
    table = table.add_column("id", pa.array(ids, pa.string()))
    if own_files:
        table = table.add_column(FILE, pa.array(files, pa.string()))
    return table.select_columns([*named, *(clashing.get(name, name) for name in rest)])
