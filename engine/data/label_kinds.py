"""Labels of each kind: one class an example, several, a number, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from engine.data.class_lists import check_classes, read_class_lists
from engine.data.labels import Labels, missing_classes, read_labels
from engine.data.number_labels import read_numbers, refuse_constant
from engine.data.unsupported import refuse_label_of_other_task
from engine.store.errors import DataError
from engine.store.records import LabelKind
from engine.store.text import class_list


def read_labels_of_kind(
    kind: LabelKind,
    train: datasets.Dataset,
    test: datasets.Dataset,
    columns: Sequence[str],
    classes: Sequence[str] | None = None,
) -> Labels:
    """The labels of both splits.

    Args:
        columns: The column of labels; for `classes` also several, one for each class; empty for
            `none`.
        classes: `classes` under [data]: the names of the places of lists of 0 and 1.

    Returns:
        `train` and `test` are class numbers int64 `[rows]` (`class`); float64 `[rows]` (`number`);
        bool `[rows, classes]` (`classes`); or empty rows `[rows, 0]` (`none`).

    Raises:
        DataError: A label is missing, or not of this kind.
    """
    if classes is not None and kind != "classes":
        raise DataError(
            "`classes` under [data] names the places of lists of 0 and 1, which only multi-label "
            "tasks have. Remove it."
        )
    if not columns:
        return Labels(np.empty((len(train), 0)), np.empty((len(test), 0)), [], [])
    for rows in (train, test):
        refuse_label_of_other_task(rows, columns)
    if kind == "classes":
        return Labels(*read_class_lists(train, test, columns, classes))
    if len(columns) > 1:
        raise DataError(
            f"`label` under [data] names {len(columns)} columns, and only multi-label tasks take "
            "several. Name one."
        )
    if kind == "class":
        return read_labels(train, test, columns[0])
    found, tested, warnings = read_numbers(train, test, columns[0])
    return Labels(found, tested, [], warnings)


def check_sample(
    kind: LabelKind, train: np.ndarray, test: np.ndarray, names: Sequence[str], limit: int | None
) -> list[str]:
    """Warnings about the labels of both splits after any sampling.

    Args:
        limit: `train_limit`; None if all training examples are there, which were checked before.

    Raises:
        DataError: A sample of the training split has too few different labels, or no example of a
            class that the test split has.
    """
    if kind == "class":
        return missing_classes(train, test, names)
    if kind == "number" and limit is not None:
        refuse_constant(train, limit)
    if kind == "classes":
        return check_classes(train, test, names, limit)
    return []


def strata(labels: np.ndarray) -> np.ndarray:
    """Groups that a sample has in proportion, int64 `[rows]`.

    The classes; for several classes an example, the rarest that it has; else all in one.
    """
    if labels.dtype.kind == "i":
        return labels
    if labels.dtype != bool:
        return np.zeros(len(labels), np.int64)
    often = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    found: np.ndarray = np.where(labels.any(axis=1), often.argmin(axis=1), -1)
    return found


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
        return [class_list([classes[one] for one in value]) for value in values]
    if kind == "number":
        return [f"{value:.6g}" for value in values]
    return [""] * len(values)
