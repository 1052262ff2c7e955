"""Labels of any kind → numbers of the classes in one list, the same for both splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from engine.store.errors import DataError


def read_labels(
    train: datasets.Dataset, test: datasets.Dataset, column: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Map the labels of both splits to the same class numbers.

    Class names come from a `ClassLabel` feature of the training split, in its order. Without one
    they are the distinct values of the training split, sorted (numbers by value).

    Args:
        train, test: The splits.
        column: The column of labels in both.

    Returns:
        (training labels, test labels, class names). Labels are int64 `[rows]`.

    Raises:
        DataError: A label is missing, out of range or not a class; there is only one class; or the
            test split has a class that the training split lacks.
    """
    train_values = _values(train, column, "training")
    test_values = _values(test, column, "test")
    feature = train.features[column]
    names: list[Any]
    if isinstance(feature, datasets.ClassLabel):
        names = list(feature.names)
        known = set(train_values)
    else:
        names = sorted(set(train_values), key=_order)
        known = set(names)
    unknown = next((row for row, value in enumerate(test_values) if value not in known), None)
    if unknown is not None:
        shown = ", ".join(str(name) for name in sorted(known, key=_order)[:20])
        raise DataError(
            f"Row {unknown} of the test split has class {str(test_values[unknown])!r}, of which "
            f"the training split has no example (it has {shown}). Remove such rows or correct the "
            "labels."
        )
    if len(known) < 2:
        raise DataError(
            f"Every training example has class {str(next(iter(known)))!r}; two classes are needed."
        )
    place = {name: i for i, name in enumerate(names)}
    return (
        np.array([place[value] for value in train_values], np.int64),
        np.array([place[value] for value in test_values], np.int64),
        [str(name) for name in names],
    )


def missing_classes(train: np.ndarray, test: np.ndarray, names: Sequence[str]) -> list[str]:
    """Warnings about classes of which a split has no example, after any sampling.

    Raises:
        DataError: A sample of the training split has no example of a class that the test split has,
            or only one class.
    """
    there = {"training": set(train.tolist()), "test": set(test.tolist())}
    missing = there["test"] - there["training"]
    if missing or len(there["training"]) < 2:
        lacking = f"no example of class {names[min(missing)]!r}" if missing else "one class only"
        raise DataError(
            f"train_limit = {len(train)} under [data] leaves {lacking}; raise it to at least "
            f"{len(names)}, the number of classes."
        )
    return [
        f"The {split} split has no example of {', '.join(lacks)}."
        for split, found in there.items()
        if (lacks := [name for i, name in enumerate(names) if i not in found])
    ]


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _values(rows: datasets.Dataset, column: str, split: str) -> list[Any]:
    """Labels as class names (`ClassLabel`), texts or whole numbers, none of them missing."""
    feature = rows.features[column]
    labels: pa.ChunkedArray = rows.select_columns([column]).with_format("arrow")[:][column]
    if labels.null_count:
        row = labels.is_null().to_pylist().index(True)
        raise DataError(f"Row {row} of the {split} split has no label (column {column!r}).")
    if isinstance(feature, datasets.ClassLabel):
        numbers = labels.to_numpy()
        wrong = np.flatnonzero((numbers < 0) | (numbers >= len(feature.names)))
        if len(wrong):
            raise DataError(
                f"Row {wrong[0]} of the {split} split has label {numbers[wrong[0]]}, out of "
                f"range: column {column!r} names {len(feature.names)} classes, from 0 to "
                f"{len(feature.names) - 1}."
            )
        return [feature.names[number] for number in numbers]
    kind = labels.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return list(labels.to_pylist())
    if pa.types.is_boolean(kind):
        return ["true" if value else "false" for value in labels.to_pylist()]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = labels.to_numpy()
        wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0) | (numbers % 1 != 0))
        if len(wrong):
            raise DataError(
                f"Row {wrong[0]} of the {split} split has label {numbers[wrong[0]]}; a class must "
                "be a whole number that is not negative."
            )
        return [int(number) for number in numbers]
    raise DataError(
        f"Column {column!r} of the {split} split holds {kind}; classes are texts, whole numbers or "
        "a ClassLabel. Name the right column as `label` under [data]."
    )
