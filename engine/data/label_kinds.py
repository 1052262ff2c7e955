"""Labels that are not one class an example: numbers, several classes, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from engine.data.labels import Labels, read_labels
from engine.store.errors import DataError
from engine.store.records import LabelKind


def read_labels_of_kind(
    kind: LabelKind, train: datasets.Dataset, test: datasets.Dataset, column: str | None
) -> Labels:
    """The labels of both splits.

    Returns:
        `train` and `test` are class numbers int64 `[rows]` (`class`); float64 `[rows]` (`number`);
        bool `[rows, classes]` (`classes`); or empty rows `[rows, 0]` (`none`).

    Raises:
        DataError: A label is missing, or not of this kind.
    """
    if column is None:
        return Labels(np.empty((len(train), 0)), np.empty((len(test), 0)), [], [])
    if kind == "class":
        return read_labels(train, test, column)
    if kind == "number":
        parts = [_numbers(rows, column, split) for rows, split in _splits(train, test)]
        return Labels(parts[0], parts[1], [], _out_of_range(*parts))
    return _several(train, test, column)


def strata(labels: np.ndarray) -> np.ndarray:
    """Groups that a sample has in proportion: the classes, or one group for other labels."""
    return labels if labels.dtype.kind == "i" else np.zeros(len(labels), np.int64)


def as_column(labels: np.ndarray) -> pa.Array:
    """Labels as a column for `Task.encode`: numbers, or a list of class numbers for each row."""
    if labels.ndim == 1:
        return pa.array(labels)
    return pa.array([np.flatnonzero(row).tolist() for row in labels], pa.list_(pa.int64()))


def label_texts(kind: LabelKind, values: Sequence[Any], classes: Sequence[str]) -> list[str]:
    """Labels of rows, as in `as_column`, for people."""
    if kind == "class":
        return [classes[value] for value in values]
    if kind == "classes":
        return [", ".join(classes[one] for one in value) or "none" for value in values]
    if kind == "number":
        return [f"{value:.6g}" for value in values]
    return [""] * len(values)


def _splits(
    train: datasets.Dataset, test: datasets.Dataset
) -> tuple[tuple[datasets.Dataset, str], tuple[datasets.Dataset, str]]:
    return (train, "training"), (test, "test")


def _values(rows: datasets.Dataset, column: str, split: str) -> pa.ChunkedArray:
    values: pa.ChunkedArray = rows.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(f"Row {row} of the {split} split has no label (column {column!r}).")
    return values


def _numbers(rows: datasets.Dataset, column: str, split: str) -> np.ndarray:
    found = np.empty(len(rows))
    for row, value in enumerate(_values(rows, column, split).to_pylist()):
        try:
            found[row] = float(value)
        except (TypeError, ValueError):
            found[row] = np.nan
        if not np.isfinite(found[row]):
            raise DataError(
                f"Row {row} of the {split} split has the label {str(value)[:40]!r} (column "
                f"{column!r}), which is not a finite number. This task predicts numbers: correct "
                "the row, or name the right column as `label` under [data]."
            )
    return found


def _out_of_range(train: np.ndarray, test: np.ndarray) -> list[str]:
    if train.min() == train.max():
        raise DataError(
            f"Every training example has the label {train[0]:g}; there is nothing to learn."
        )
    outside = int(((test < train.min()) | (test > train.max())).sum())
    if not outside:
        return []
    return [
        f"{outside:,} of {len(test):,} test labels are outside the range of the training labels, "
        f"{train.min():g} to {train.max():g}."
    ]


def _several(train: datasets.Dataset, test: datasets.Dataset, column: str) -> Labels:
    lists = [_names(rows, column, split) for rows, split in _splits(train, test)]
    classes = sorted({name for names in lists[0] for name in names})
    if not classes:
        raise DataError(f"No training example has any class (column {column!r}).")
    place = {name: number for number, name in enumerate(classes)}
    parts = []
    for names_of_rows, split in zip(lists, ("training", "test"), strict=True):
        found = np.zeros((len(names_of_rows), len(classes)), bool)
        for row, names in enumerate(names_of_rows):
            for name in names:
                if name not in place:
                    raise DataError(
                        f"Row {row} of the {split} split has the class {name!r}, of which the "
                        "training split has no example. Remove such rows or correct the labels."
                    )
                found[row, place[name]] = True
        parts.append(found)
    return Labels(parts[0], parts[1], classes, [])


def _names(rows: datasets.Dataset, column: str, split: str) -> list[list[str]]:
    values = _values(rows, column, split)
    feature = rows.features[column]
    inner = getattr(feature, "feature", None)
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        raise DataError(
            f"Column {column!r} of the {split} split holds {values.type}; this task has several "
            "classes an example, so each row needs a list of classes. Name the right column as "
            "`label` under [data]."
        )
    if isinstance(inner, datasets.ClassLabel):
        return [[inner.names[one] for one in row] for row in values.to_pylist()]
    return [[str(one) for one in row] for row in values.to_pylist()]
