"""`[data]` of study.toml → two checked splits with named columns, common classes and unique ids.

    source = load_source(spec.data, base=study_folder)
    source.train[0]   # {"input": ..., "label": 3, "id": "train-0", ...}

Pictures stay undecoded (`{"bytes", "path"}`): the task decodes them, chunk by chunk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from engine.data.file_names import (
    FILE,
    as_column,
    file_names,
    has_files,
    ids_are_files,
    source_folder,
)
from engine.data.ids import read_ids
from engine.data.labels import read_labels
from engine.data.pictures import SUFFIXES
from engine.data.readers import Rows, read_splits
from engine.store.errors import DataError
from engine.store.layout import SPLITS, Split
from engine.store.spec import DataSpec

_LABEL_NAMES = ("label", "labels", "class", "category", "target", "y")


@dataclass(frozen=True)
class Source:
    """A checked dataset.

    Attributes:
        train: Columns `input`, `label` (int64), `id` (text), for pictures `file` (text; missing for
            a picture without a file), then all other columns of the source.
        test: The same columns, as far as it has them.
        classes: Class names by label.
        description: One line for people.
        warnings: What is allowed, but should be known.
    """

    train: datasets.Dataset
    test: datasets.Dataset
    classes: list[str]
    description: str
    warnings: tuple[str, ...]


def load_source(
    spec: DataSpec, base: Path, allow_code: bool = False, scratch: Path | None = None
) -> Source:
    """Read and check a dataset. Pictures are checked only when they are encoded.

    Args:
        spec: `[data]` of the study.
        base: The study's folder; relative paths start there.
        allow_code: Run `python:module:function`. Only for the command line, never for a server.
        scratch: Folder for a memory-mapped copy of files that cannot be mapped directly (Parquet,
            CSV, JSON); None is the system's temporary folder. The copy ends with the process.

    Raises:
        DataError: One line: what is wrong, in which row or file, what to do.
    """
    with tempfile.TemporaryDirectory(prefix="dataloupe-", dir=scratch) as folder:
        # Mapped files stay readable after the folder is deleted, so even a killed process leaves
        # no files behind.
        train, test = read_splits(spec, base, allow_code, Path(folder))
        train, test = _limited(train, spec.train_limit), _limited(test, spec.test_limit)
        for rows, split in ((train, spec.train), (test, spec.test)):
            if not len(rows.table):
                raise DataError(f"The split {split!r} of {spec.source} is empty.")
        label = _label_column(train.table, spec)
        input_ = _input_column(train.table, spec, label)
        _require(train.table, spec.train, [input_, label])
        _require(test.table, spec.test, [input_, label])
        labels = read_labels(train.table, test.table, label)
        tables = [_with_pictures(rows, input_) for rows in (train, test)]
        start = source_folder(spec.source, base)
        files = [file_names(table, input_, start) for table in tables]
        ids = [
            _ids(rows.table, split, spec, input_, found)
            for rows, split, found in zip((train, test), SPLITS, files, strict=True)
        ]
        _refuse_duplicates(*ids)
        splits = [
            _named(table, input_, label, spec.id, numbers, names, found)
            for table, numbers, names, found in zip(tables, labels[:2], ids, files, strict=True)
        ]
    description = (
        f"{len(splits[0]):,} training and {len(splits[1]):,} test examples "
        f"of {len(labels[2])} classes from {spec.source}"
    )
    return Source(splits[0], splits[1], labels[2], description, tuple(labels[3]))


def _limited(rows: Rows, limit: int | None) -> Rows:
    if limit is None or limit >= len(rows.table):
        return rows
    return Rows(rows.table.select(range(limit)), rows.folder)


# --- which column is what -----------------------------------------------------------------------


def _label_column(table: datasets.Dataset, spec: DataSpec) -> str:
    if spec.label != "auto":
        return spec.label
    found = [
        name
        for name, feature in table.features.items()
        if isinstance(feature, datasets.ClassLabel) and name not in (spec.input, spec.id)
    ]
    if not found:
        found = [name for name in _LABEL_NAMES if name in table.column_names][:1]
    return _only(found, "label", table)


def _input_column(table: datasets.Dataset, spec: DataSpec, label: str) -> str:
    """A column of pictures if there is one, else of names of picture files, else of texts."""
    if spec.input != "auto":
        return spec.input
    others = {
        name: feature
        for name, feature in table.features.items()
        if name not in (label, spec.id, "id")
    }
    texts = [name for name, feature in others.items() if _is_text(feature)]
    pictures = [name for name, feature in others.items() if _is_picture(feature)]
    files = [name for name in texts if _names_pictures(table, name)]
    found = pictures or files or texts
    if not found and spec.id is not None and _names_pictures(table, spec.id):
        found = [spec.id]  # names of files that are ids, too
    return _only(found, "input", table)


def _only(found: Sequence[str], key: str, table: datasets.Dataset) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} columns fit ({', '.join(found)})" if found else "no column fits"
    raise DataError(
        f"{problem[0].upper()}{problem[1:]} as {key}; the columns are "
        f"{', '.join(table.column_names)}. Name one as `{key}` under [data]."
    )


def _require(table: datasets.Dataset, split: str, columns: Sequence[str | None]) -> None:
    for column in columns:
        if column is not None and column not in table.column_names:
            raise DataError(
                f"The split {split!r} has no column {column!r}; it has "
                f"{', '.join(table.column_names)}."
            )


def _is_text(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _names_pictures(table: datasets.Dataset, column: str) -> bool:
    return (
        _is_text(table.features[column]) and Path(str(table[0][column])).suffix.lower() in SUFFIXES
    )


def _is_picture(feature: object) -> bool:
    return (
        isinstance(feature, datasets.Image)
        or (isinstance(feature, datasets.Value) and "binary" in feature.dtype)
        or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
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
    if _is_picture(feature):
        table = table.cast_column(column, datasets.Image(decode=False))
        content = _column(table, column).combine_chunks()
        if not (content.field("bytes").null_count and len(content)):
            return table
        paths = content.field("path").filter(content.field("bytes").is_null())
        if all(path is None or Path(path).is_absolute() for path in paths.to_pylist()):
            return table
        files = content.field("path").to_pylist()
        contents = content.field("bytes")
    elif _names_pictures(table, column):
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
    seen: dict[str, str] = {}
    for split, ids in (("training", train), ("test", test)):
        for row, id_ in enumerate(ids):
            place = f"row {row} of the {split} split"
            if id_ in seen:
                raise DataError(f"The id {id_!r} occurs twice: {seen[id_]} and {place}.")
            seen[id_] = place


def _named(
    table: datasets.Dataset,
    input_: str,
    label: str,
    id_: str | None,
    labels: np.ndarray,
    ids: Sequence[str],
    files: Sequence[str | None] | None,
) -> datasets.Dataset:
    """`input`, `label`, `id`, for pictures `file`, then all others.

    Other columns of these names get `original_` before it. A column `file` of the source stays
    where the pictures have no files of their own.
    """
    rest = [name for name in table.column_names if name not in (input_, label, id_)]
    own_files = files is not None and (has_files(files) or FILE not in rest)
    named = ("input", "label", "id", *([FILE] if own_files else []))
    table = table.select_columns([input_, *rest])
    clashing = {name: f"original_{name}" for name in rest if name in named}
    while taken := set(clashing.values()) & set(rest):
        clashing |= {name: f"original_{to}" for name, to in clashing.items() if to in taken}
    if input_ != "input":
        clashing = {**clashing, input_: "input"}
    table = table.rename_columns(clashing) if clashing else table
    table = table.add_column("label", pa.array(labels, pa.int64()))
    table = table.add_column("id", pa.array(ids, pa.string()))
    if own_files:
        table = table.add_column(FILE, pa.array(files, pa.string()))
    return table.select_columns([*named, *(clashing.get(name, name) for name in rest)])
