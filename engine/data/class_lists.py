"""Labels that are any number of classes an example, as multi-label tasks need them.

Rows hold lists of classes, lists of 0 and 1 with a place for each class, objects of true and false,
or texts: JSON lists, or classes separated by `;` or `|`. Several columns of true and false are one
class each.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from engine.data.labels import alike
from engine.store.errors import DataError

SEPARATORS = (";", "|")
_YES_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_WRITE_NONE = "Write [] for an example of no class."


def read_class_lists(
    train: datasets.Dataset,
    test: datasets.Dataset,
    columns: Sequence[str],
    named: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Whether each row has each class, bool `[rows, classes]` for both splits; names; warnings.

    Args:
        columns: The column of labels, or columns of 0 and 1, one for each class.
        named: `classes` under [data]: the names of the places of lists of 0 and 1.

    Raises:
        DataError: A label is missing or cannot be read; the test split has a class that the
            training split lacks; or all training examples have the same classes.
    """
    splits = ((train, "training"), (test, "test"))
    single = len(columns) == 1 and not _is_yes_no(train, columns[0])
    if single:
        kinds = [_kind(rows, columns[0], split) for rows, split in splits]
        if kinds == ["lists", "places"]:  # a few lists of the classes 0 and 1 look like places
            kinds[1] = "lists"
        if kinds[0] != kinds[1]:
            raise DataError(
                f"Column {columns[0]!r} holds {kinds[0]} in the training split and {kinds[1]} in "
                "the test split. Write both in the same way."
            )
    if not single or kinds[0] in ("places", "objects"):
        read = [
            _places(rows, columns[0], split, kinds[0]) if single else _columns(rows, columns, split)
            for rows, split in splits
        ]
        names = _names_of_places(read, columns[0], named)
        parts = [found for _, found in read]
        warnings: list[str] = []
    else:
        lists = [_lists(rows, columns[0], split) for rows, split in splits]
        feature = getattr(train.features[columns[0]], "feature", None)
        ordered = feature.names if isinstance(feature, datasets.ClassLabel) else None
        names, parts, warnings = _numbered(lists, ordered, columns[0], named)
    check_classes(parts[0], parts[1], names, None)
    return parts[0], parts[1], names, warnings


def check_classes(
    train: np.ndarray, test: np.ndarray, names: Sequence[str], limit: int | None
) -> list[str]:
    """Warnings about classes that all or no training examples have.

    Args:
        limit: The size of the sample of training examples; None: all of them.

    Raises:
        DataError: A test example has a class of which there is no training example, or all training
            examples have the same classes.
    """
    have = train.sum(axis=0)
    unknown = np.argwhere(test & (have == 0))
    if len(unknown):
        row, place = unknown[0]
        if limit is not None:
            raise DataError(
                f"train_limit = {limit} under [data] leaves no example of class "
                f"{names[place]!r}, which test examples have; raise it."
            )
        raise DataError(
            f"Row {row} of the test split has the class {names[place]!r}, of which the training "
            "split has no example. Remove such rows or correct the labels."
        )
    constant = (have == 0) | (have == len(train))
    if constant.all():
        has = [name for name, count in zip(names, have, strict=True) if count]
        raise DataError(
            f"Every training example has the same classes ({', '.join(has[:10]) or 'none'}); there "
            "is nothing to learn."
        )
    never = [name for name, count in zip(names, have, strict=True) if count == 0]
    always = [name for name, count in zip(names, have, strict=True) if count == len(train)]
    missing = [
        name
        for name, known, there in zip(names, have, test.sum(axis=0), strict=True)
        if known and not there
    ]
    found = []
    if never:
        found.append(f"The training split has no example of {', '.join(never)}.")
    if always:
        found.append(f"Every training example has the class {', '.join(always)}.")
    if missing:
        found.append(f"The test split has no example of {', '.join(missing)}.")
    if (train.sum(axis=1) == 1).all():
        found.append(
            "Every training example has exactly one class. A task of classification, such as "
            "image-classification or text-classification, then fits better."
        )
    return found


# --- what a column holds ------------------------------------------------------------------------


def _values(rows: datasets.Dataset, column: str, split: str) -> pa.ChunkedArray:
    values: pa.ChunkedArray = rows.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(
            f"Row {row} of the {split} split has no label (column {column!r}). {_WRITE_NONE}"
        )
    return values


def _is_yes_no(rows: datasets.Dataset, column: str) -> bool:
    """Whether a column holds true and false, or 0 and 1, so that its name is the class."""
    feature = rows.features[column]
    kinds = ("bool", "int", "uint")
    if not isinstance(feature, datasets.Value) or not feature.dtype.startswith(kinds):
        return False
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    return set(values.unique().to_pylist()) <= {0, 1}


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _kind(rows: datasets.Dataset, column: str, split: str) -> str:
    """`lists` of classes, `places` (lists of 0 and 1), `objects` of true and false."""
    values = _values(rows, column, split)
    feature = rows.features[column]
    if pa.types.is_struct(values.type):
        return "objects"
    if not _is_list(values.type):
        if _is_text(values.type) and not isinstance(feature, datasets.ClassLabel):
            lists = _lists(rows, column, split)
            return "places" if _are_places(lists) else "lists"
        holds = "one class" if isinstance(feature, datasets.ClassLabel) else str(values.type)
        raise DataError(
            f"Column {column!r} of the {split} split holds {holds} for each example, and this task "
            "needs several classes: a list, or a text such as a;b. For one class an example set a "
            "task of classification; several columns of 0 and 1 are named as label = "
            '["a", "b"] under [data].'
        )
    if isinstance(getattr(feature, "feature", None), datasets.ClassLabel):
        return "lists"
    return "places" if _are_places(values.to_pylist()) else "lists"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _are_places(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether lists are of 0 and 1 (or true and false), all of one length above 1."""
    widths = {len(row) for row in lists}
    return (
        len(widths) == 1
        and min(widths) > 1
        and all(
            isinstance(one, bool | int | float) and one in (0, 1) for row in lists for one in row
        )
    )


# --- a place for each class ---------------------------------------------------------------------


def _places(
    rows: datasets.Dataset, column: str, split: str, kind: str
) -> tuple[list[str] | None, np.ndarray]:
    """Names, where the column has them, and a yes or no for each class of each row."""
    if kind == "objects":
        values = _values(rows, column, split).to_pylist()
        names = list(values[0])
        cells = [[row[name] for name in names] for row in values]
        found = [
            [_yes_no(one, row, f"{column}.{names[place]}", split) for place, one in enumerate(part)]
            for row, part in enumerate(cells)
        ]
        return names, np.array(found, bool)
    return None, np.array(_lists(rows, column, split), np.float64) == 1


def _columns(
    rows: datasets.Dataset, columns: Sequence[str], split: str
) -> tuple[list[str] | None, np.ndarray]:
    parts = []
    for column in columns:
        values = rows.select_columns([column]).with_format("arrow")[:][column].to_pylist()
        parts.append([_yes_no(one, row, column, split) for row, one in enumerate(values)])
    return list(columns), np.array(parts, bool).T


def _yes_no(value: Any, row: int, column: str, split: str) -> bool:
    found = None
    if isinstance(value, str):
        found = _YES_NO.get(value.strip().lower())
    elif isinstance(value, bool | int | float) and value in (0, 1):
        found = bool(value)
    if found is None:
        shown = "nothing" if value is None else repr(str(value)[:40])
        raise DataError(
            f"Row {row} of the {split} split has {shown} in column {column!r}, which is one of "
            "several columns of classes. Each holds 0 or 1, or true or false."
        )
    return found


def _names_of_places(
    read: Sequence[tuple[list[str] | None, np.ndarray]], column: str, named: Sequence[str] | None
) -> list[str]:
    (own, train), (other, test) = read
    if train.shape[1] != test.shape[1] or own != other:
        raise DataError(
            f"The labels (column {column!r}) have {train.shape[1]:,} places in the training split "
            f"and {test.shape[1]:,} in the test split, or others; both need the same classes."
        )
    if own is not None:
        if named is not None:
            raise DataError(
                "`classes` under [data] names the places of lists of 0 and 1, and these labels "
                "have names of their own. Remove it."
            )
        return own
    if named is None:
        return [str(place) for place in range(train.shape[1])]
    if len(named) != train.shape[1]:
        raise DataError(
            f"`classes` under [data] has {len(named):,} names, and each label (column {column!r}) "
            f"has {train.shape[1]:,} places."
        )
    return list(named)


# --- lists of classes ---------------------------------------------------------------------------


def _lists(rows: datasets.Dataset, column: str, split: str) -> list[list[Any]]:
    """The list of each row as it is written: names, or numbers."""
    values = _values(rows, column, split)
    feature = getattr(rows.features[column], "feature", None)
    if _is_text(values.type):
        return _of_texts(values.to_pylist(), column, split)
    lists: list[list[Any]] = values.to_pylist()
    if isinstance(feature, datasets.ClassLabel):
        for row, part in enumerate(lists):
            if any(one is None or not 0 <= one < len(feature.names) for one in part):
                raise DataError(
                    f"Row {row} of the {split} split has the classes {part}, and column {column!r} "
                    f"names {len(feature.names)} classes, from 0 to {len(feature.names) - 1}."
                )
        return [[feature.names[one] for one in part] for part in lists]
    return lists


def _of_texts(texts: Sequence[str], column: str, split: str) -> list[list[Any]]:
    """JSON lists, or classes between `;` or `|`."""
    none = [text.strip() == "[]" for text in texts]
    if any(text.strip().startswith("[") for text, no in zip(texts, none, strict=True) if not no):
        return [_literal(text, row, column, split) for row, text in enumerate(texts)]
    used = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
    if len(used) > 1:
        rows = [next(row for row, text in enumerate(texts) if mark in text) for mark in used]
        raise DataError(
            f"Column {column!r} of the {split} split has both {used[0]!r} (row {rows[0]}) and "
            f"{used[1]!r} (row {rows[1]}), so how classes are separated is open. Use one of them, "
            "or write JSON lists."
        )
    row = next((row for row, text in enumerate(texts) if "," in text), None)
    if not used and row is not None:
        raise DataError(
            f"Row {row} of the {split} split has the label {texts[row][:40]!r} (column "
            f"{column!r}). Commas do not separate classes, because names have them: write a;b, a|b "
            'or a JSON list such as ["a", "b"].'
        )
    found = []
    for row, text in enumerate(texts):
        parts = [part.strip() for part in (text.split(used[0]) if used else [text])]
        parts = [] if none[row] else [part for part in parts if part]
        if not parts and not none[row]:
            raise DataError(
                f"Row {row} of the {split} split has an empty label (column {column!r}). "
                f"{_WRITE_NONE}"
            )
        found.append(parts)
    return found


def _literal(text: str, row: int, column: str, split: str) -> list[Any]:
    """A list in JSON, or as Python prints it."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    raise DataError(
        f"Row {row} of the {split} split has the label {text[:40]!r} (column {column!r}), which is "
        'not a JSON list such as ["a", "b"], as other rows have. Write all rows in the same way.'
    )


def _numbered(
    lists: Sequence[Sequence[Sequence[Any]]],
    ordered: Sequence[str] | None,
    column: str,
    named: Sequence[str] | None,
) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Names of all classes, a yes or no for each class of each row of both splits, warnings."""
    if named is not None:
        raise DataError(
            "`classes` under [data] names the places of lists of 0 and 1, and the lists of column "
            f"{column!r} hold classes themselves. Remove it."
        )
    texts = []
    twice = 0
    for rows, split in zip(lists, ("training", "test"), strict=True):
        part = [_class_texts(row, number, column, split) for number, row in enumerate(rows)]
        twice += sum(len(set(row)) < len(row) for row in part)
        texts.append(part)
    known = Counter(name for row in texts[0] for name in row)
    names = list(ordered) if ordered is not None else sorted(known, key=_order)
    if not names:
        raise DataError(f"No training example has any class (column {column!r}).")
    for number, row in enumerate(texts[1]):
        for name in row:
            if name not in known:
                raise DataError(
                    f"Row {number} of the test split has the class {name!r}, of which the training "
                    "split has no example. Remove such rows or correct the labels."
                )
    place = {name: number for number, name in enumerate(names)}
    parts = []
    for rows_of_names in texts:
        found = np.zeros((len(rows_of_names), len(names)), bool)
        for target, row in zip(found, rows_of_names, strict=True):
            target[[place[name] for name in row]] = True
        parts.append(found)
    warnings = alike(names)
    if twice:
        names_it = "example names" if twice == 1 else "examples name"
        warnings.append(f"{twice:,} {names_it} a class twice, which counts once.")
    return names, parts, warnings


def _class_texts(row: Any, number: int, column: str, split: str) -> list[str]:
    where = f"Row {number} of the {split} split has the label {str(row)[:60]} (column {column!r})"
    numbers = [one for one in row if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(row) > len(set(map(str, row))) and len(numbers) == len(row) and {*numbers} <= {0, 1}:
        raise DataError(
            f"{where}. Lists of 0 and 1 have a place for each class, so all rows need the same "
            "length."
        )
    found = []
    for one in row:
        if isinstance(one, str) and one.strip():
            found.append(one.strip())
        elif isinstance(one, int) and not isinstance(one, bool) and one >= 0:
            found.append(str(one))
        elif isinstance(one, float) and one >= 0 and one.is_integer():
            found.append(str(int(one)))
        else:
            raise DataError(
                f"{where}, in which {one!r} is no class. Classes are texts, or whole numbers that "
                "are not negative."
            )
    return found


def _order(name: str) -> tuple[bool, int, str]:
    """Whole numbers by value, then texts."""
    is_number = name.isascii() and name.isdigit()
    return not is_number, int(name) if is_number else 0, name
