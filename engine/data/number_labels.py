"""Labels that are numbers, as regression needs them."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import datasets
import numpy as np
import pyarrow as pa

from engine.store.errors import DataError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WITH_COMMAS = re.compile(r"[+-]?[\d.'\s]*\d,[\d.,'\s]*", re.ASCII)
_CORRECT = "correct the row, or name the right column as `label` under [data]."


def read_numbers(
    train: datasets.Dataset, test: datasets.Dataset, column: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels of both splits, float64 `[rows]` each, and warnings.

    Numbers, texts that are numbers, lists of one number, and classes whose names are numbers.

    Raises:
        DataError: A label is missing or no finite number, or all training labels are equal.
    """
    found = [_numbers(rows, column, split) for rows, split in ((train, "training"), (test, "test"))]
    refuse_constant(found[0], None)
    return found[0], found[1], _out_of_range(*found)


def refuse_constant(train: np.ndarray, limit: int | None) -> None:
    """Raise DataError if all training labels are equal; `limit` is the size of a sample."""
    if train.min() < train.max():
        return
    if limit is not None:
        raise DataError(
            f"train_limit = {limit} under [data] leaves one label only, {train[0]:g}; raise it."
        )
    raise DataError(
        f"Every training example has the label {train[0]:g}; there is nothing to learn."
    )


def is_number_text(text: str) -> bool:
    """Whether a text is a number in plain digits, as this module reads it."""
    return _NUMBER.fullmatch(text.strip()) is not None


def _numbers(rows: datasets.Dataset, column: str, split: str) -> np.ndarray:
    feature = rows.features[column]
    values: pa.ChunkedArray = rows.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(f"Row {row} of the {split} split has no label (column {column!r}).")
    kind = values.type
    if isinstance(feature, datasets.ClassLabel):
        return _of_classes(feature, values, column, split)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found: np.ndarray = values.to_numpy().astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            _refuse(found[wrong[0]], int(wrong[0]), column, split)
        return found
    if _is_list(kind):
        return _single_numbers(values.to_pylist(), column, split)
    if pa.types.is_decimal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(
            [_number(one, row, column, split) for row, one in enumerate(values.to_pylist())]
        )
    hint = ""
    if pa.types.is_boolean(kind):
        hint = ' Two classes are a task of classification: set name = "…-classification".'
    raise DataError(
        f"Column {column!r} of the {split} split holds {kind}, and this task predicts numbers. "
        f"Name a column of numbers as `label` under [data].{hint}"
    )


def _of_classes(
    feature: datasets.ClassLabel, values: pa.ChunkedArray, column: str, split: str
) -> np.ndarray:
    if not all(is_number_text(name) for name in feature.names):
        raise DataError(
            f"Column {column!r} of the {split} split holds classes ({', '.join(feature.names[:5])}"
            f"{', ...' if len(feature.names) > 5 else ''}), and this task predicts numbers. Name a "
            "column of numbers as `label` under [data], or set a task of classification."
        )
    places = values.to_numpy()
    wrong = np.flatnonzero((places < 0) | (places >= len(feature.names)))
    if len(wrong):
        _refuse(places[wrong[0]], int(wrong[0]), column, split)
    named = np.array([float(name) for name in feature.names])
    chosen: np.ndarray = named[places]
    return chosen


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _single_numbers(lists: list[list[Any]], column: str, split: str) -> np.ndarray:
    for row, one in enumerate(lists):
        if len(one) != 1:
            raise DataError(
                f"Row {row} of the {split} split has a list of {len(one):,} as label (column "
                f"{column!r}). Regression predicts one number an example: write each number in a "
                "column of its own, and name one as `label` under [data]."
            )
    return np.array([_number(one[0], row, column, split) for row, one in enumerate(lists)])


def _number(value: Any, row: int, column: str, split: str) -> float:
    if isinstance(value, str):
        text = value.strip().replace("−", "-")
        if not is_number_text(text):
            _refuse(value, row, column, split)
        found = float(text)
    elif value is None or isinstance(value, bool):
        _refuse(value, row, column, split)
    else:
        try:
            found = float(value)
        except (TypeError, ValueError):
            _refuse(value, row, column, split)
    if not np.isfinite(found):
        _refuse(value, row, column, split)
    return found


def _refuse(value: Any, row: int, column: str, split: str) -> NoReturn:
    where = f"Row {row} of the {split} split has the label {str(value)[:40]!r} (column {column!r})"
    if isinstance(value, str) and _WITH_COMMAS.fullmatch(value.strip()):
        raise DataError(
            f"{where}. Commas in numbers mean decimals to some and thousands to others: write "
            "numbers with a decimal point and without separators, such as 1234.5."
        )
    raise DataError(
        f"{where}, which is not a finite number. This task predicts numbers: {_CORRECT}"
    )


def _out_of_range(train: np.ndarray, test: np.ndarray) -> list[str]:
    outside = int(((test < train.min()) | (test > train.max())).sum())
    if not outside:
        return []
    return [
        f"{outside:,} of {len(test):,} test labels are outside the range of the training labels, "
        f"{train.min():g} to {train.max():g}."
    ]
