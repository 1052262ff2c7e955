"""Labels of any kind → numbers of the classes in one list, the same for both splits."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from engine.store.errors import DataError

_MOST_FRACTIONS = 20
"""Labels such as 0.5 and 1.0 may be classes if there are no more than these, or half the rows."""
TO_PREDICT_NUMBERS = (
    'To predict numbers, set name = "image-regression" or "text-regression" under [task]'
)
FOR_SEVERAL_CLASSES = (
    'For several classes an example, set name = "image-multilabel" or "text-multilabel" under '
    "[task]"
)


@dataclass(frozen=True)
class Labels:
    """Labels of both splits.

    Attributes:
        train, test: Class numbers, int64 `[rows]`.
        classes: Names by number.
        warnings: About labels that might not be what is meant.
    """

    train: np.ndarray
    test: np.ndarray
    classes: list[str]
    warnings: list[str]


def read_labels(train: datasets.Dataset, test: datasets.Dataset, column: str) -> Labels:
    """Map the labels of both splits to the same class numbers.

    Class names come from a `ClassLabel` feature of the training split, in its order. Without one
    they are the distinct values of the training split, sorted (numbers by value). One-hot labels
    are the positions of their ones. Whole numbers are not negative, except in classes -1 and 1.

    Args:
        train, test: The splits.
        column: The column of labels in both.

    Raises:
        DataError: A label is missing, out of range or not a class; there is only one class; or the
            test split has a class that the training split lacks.
    """
    widths = [
        len(row) for row in (_first(train, column), _first(test, column)) if isinstance(row, list)
    ]
    if len(set(widths)) > 1:
        raise DataError(
            f"One-hot labels (column {column!r}) have {widths[0]} classes in the training split "
            f"and {widths[1]} in the test split."
        )
    train_values = _values(train, column, "training")
    test_values = _values(test, column, "test")
    signs = set(train_values) == {-1, 1}
    _refuse_negative(train_values, "training", signs)
    _refuse_negative(test_values, "test", signs)
    warnings = []
    feature = train.features[column]
    names: list[Any]
    if isinstance(feature, datasets.ClassLabel):
        names = list(feature.names)
        known = set(train_values)
    else:
        if _are_texts(train_values) != _are_texts(test_values):
            kinds = ("texts", "numbers") if _are_texts(train_values) else ("numbers", "texts")
            warnings.append(
                f"Labels are {kinds[0]} in the training split and {kinds[1]} in the test split; "
                "both are read as texts."
            )
            train_values = [str(value) for value in train_values]
            test_values = [str(value) for value in test_values]
        names = sorted(set(train_values), key=_order)
        known = set(names)
    unknown = next((row for row, value in enumerate(test_values) if value not in known), None)
    if unknown is not None:
        raise _unknown_class(test_values[unknown], unknown, known)
    if len(known) < 2:
        raise DataError(
            f"Every training example has class {str(next(iter(known)))!r}; two classes are needed."
        )
    warnings += [*alike(str(name) for name in names), *_joined(names)]
    place = {name: i for i, name in enumerate(names)}
    return Labels(
        np.array([place[value] for value in train_values], np.int64),
        np.array([place[value] for value in test_values], np.int64),
        [str(name) for name in names],
        warnings,
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


def _joined(names: Sequence[Any]) -> list[str]:
    """A warning about names such as `a;b` beside `a` or `c;a`: several classes in one text."""
    texts = [name for name in names if isinstance(name, str)]
    for mark in (";", "|"):
        parts = {name: [part.strip() for part in name.split(mark)] for name in texts}
        often = Counter(part for found in parts.values() for part in set(found))
        found = [
            name for name in texts if mark in name and all(often[part] > 1 for part in parts[name])
        ]
        if found:
            return [
                f"Labels such as {found[0]!r} look like several classes in one text, and are read "
                f"as one class each. {FOR_SEVERAL_CLASSES}."
            ]
    return []


# --- names that look alike ----------------------------------------------------------------------


def alike(names: Iterable[str]) -> list[str]:
    """Warnings about classes whose names look the same, or nearly so."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_look(name)].append(name)
    return [
        f"The classes {' and '.join(spelled(name) for name in group)} look alike but are different "
        "labels. If they are one class, write them in the same way."
        for group in groups.values()
        if len(group) > 1
    ]


def _look(name: str) -> str:
    """What is the same for names that the eye takes for each other.

    Letters in any case and Unicode form, numbers of the same value, spaces of any kind or none.
    """
    composed = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(c for c in composed if unicodedata.category(c) not in ("Cf", "Cc"))
    plain = "".join(visible.split())
    try:
        return f"{float(plain):g}" if plain.isascii() and len(plain) <= 15 else plain
    except ValueError:
        return plain


def spelled(name: str) -> str:
    """A class in quotes; with the codes of characters where those alone tell it from others."""
    plain = unicodedata.normalize("NFC", name) == name and name.isprintable()
    shown = repr(name) if plain else ascii(name)
    return shown if plain or name.isascii() else f"{shown} ({_form(name)})"


def _form(name: str) -> str:
    decomposed = any(map(unicodedata.combining, name))
    return "accents as characters of their own" if decomposed else "with characters unlike others"


def _unknown_class(value: Any, row: int, known: set[Any]) -> DataError:
    shown = ", ".join(str(name) for name in sorted(known, key=_order)[:20])
    twin = next((str(name) for name in known if _look(str(name)) == _look(str(value))), None)
    hint = "" if twin is None else f" The training split's {spelled(twin)} looks like it."
    return DataError(
        f"Row {row} of the test split has class {spelled(str(value))}, of which the training split "
        f"has no example (it has {shown}).{hint} Remove such rows or correct the labels."
    )


# --- values -------------------------------------------------------------------------------------


def _first(rows: datasets.Dataset, column: str) -> Any:
    return rows.select_columns([column])[0][column]  # pictures beside it stay undecoded


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _are_texts(values: Sequence[Any]) -> bool:
    return isinstance(values[0], str)


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
        texts = list(labels.to_pylist())
        _refuse_measurements(texts, column)
        return texts
    if pa.types.is_boolean(kind):
        return ["true" if value else "false" for value in labels.to_pylist()]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = labels.to_numpy()
        wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers % 1 != 0))
        if len(wrong):
            raise DataError(
                f"Row {wrong[0]} of the {split} split has label {numbers[wrong[0]]}; a class must "
                f"be a whole number that is not negative. {TO_PREDICT_NUMBERS}."
            )
        return [int(number) for number in numbers]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _one_hot(labels, column, split)
    raise DataError(
        f"Column {column!r} of the {split} split holds {kind}; classes are texts, whole numbers or "
        "a ClassLabel. Name the right column as `label` under [data]."
    )


def _refuse_measurements(texts: Sequence[str], column: str) -> None:
    """Refuse numbers such as 0.73 that are a quantity to predict, not names of classes."""
    distinct = set(texts)
    if len(distinct) <= min(_MOST_FRACTIONS, len(texts) / 2):
        return
    try:
        numbers = [float(text) for text in distinct]
    except ValueError:
        return
    if any(math.isfinite(number) and number % 1 for number in numbers):
        raise DataError(
            f"Column {column!r} holds {len(distinct):,} different numbers, such as {texts[0]}, "
            f"which is a quantity, not classes. {TO_PREDICT_NUMBERS}; or name the right column as "
            "`label` under [data]."
        )


def _refuse_negative(values: Sequence[Any], split: str, signs: bool) -> None:
    if _are_texts(values) or signs:
        return
    row = next((row for row, value in enumerate(values) if value < 0), None)
    if row is not None:
        raise DataError(
            f"Row {row} of the {split} split has label {values[row]}; a class must be a whole "
            "number that is not negative (unless the classes are -1 and 1). -1 often stands for a "
            "missing label: remove such rows, or write the classes as texts."
        )


def _one_hot(labels: pa.ChunkedArray, column: str, split: str) -> list[int]:
    """The position of the only 1 of each row; all other numbers are 0."""
    rows = labels.to_pylist()
    width = len(rows[0])
    for number, row in enumerate(rows):
        others = [value for value in row if value != 1]
        single = len(row) == width > 1 and len(others) == width - 1
        if not single or any(value != 0 for value in others):
            raise DataError(
                f"Row {number} of the {split} split has the label {_short(row)} (column "
                f"{column!r}), which is neither one class nor one-hot (a single 1, and 0 for every "
                f"other class). Each example needs one class. {FOR_SEVERAL_CLASSES}; or name the "
                "right column as `label` under [data]."
            )
    return [row.index(1) for row in rows]


def _short(row: Sequence[Any]) -> str:
    shown = ", ".join(str(value) for value in row[:6])
    return f"[{shown}{', ...' if len(row) > 6 else ''}]"
