"""Which column of a source is the input, and which is the label.

Names that are usual decide; what else would fit is said. Without such a name, a column is chosen
only where nothing else can be meant: a model of the wrong column looks like any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import datasets

from engine.data.labels import FOR_SEVERAL_CLASSES
from engine.data.number_labels import is_number_text
from engine.data.pictures import SUFFIXES
from engine.data.reading import Rows
from engine.data.reading.folders import is_picture
from engine.data.unsupported import refuse_columns_of_other_tasks
from engine.store.errors import DataError
from engine.store.records import LabelKind
from engine.store.spec import DataSpec

LABEL_NAMES: Final[dict[LabelKind, tuple[str, ...]]] = {
    "class": ("label", "labels", "class", "category", "target", "y"),
    "number": ("label", "labels", "target", "y", "rating", "score", "value"),
    "classes": ("labels", "label", "tags", "classes", "categories", "target", "y"),
    "none": (),
}
"""Usual names of columns of labels of each kind, the best first."""
_TEXT_NAMES: Final = frozenset(
    {"text", "texts", "sentence", "sentences", "review", "reviews", "content", "document"}
    | {"body", "message", "comment", "tweet", "utterance", "sms", "input"}
)
_SOURCE_NAMES: Final = frozenset(
    {"source", "sources", "src", "prompt", "prompts", "question", "questions", "instruction"}
    | {"input"}
)
"""Usual names of texts that a target belongs to, where examples have no labels."""
_FILE_NAMES: Final = frozenset(
    {"file", "files", "file_name", "filename", "image", "images", "img", "picture"}
    | {"pictures", "photo", "path", "filepath", "file_path", "image_path", "image_file"}
    | {"input"}
)
_NO_INPUT: Final = ("id", "split", "source_row")
_ROWS_TO_LOOK_AT: Final = 1000


def label_columns(
    table: datasets.Dataset, spec: DataSpec, kind: LabelKind
) -> tuple[tuple[str, ...], list[str]]:
    """The columns of labels, one unless the study names several, and notes on others that might be
    meant.

    Raises:
        DataError: None fits, or several do.
    """
    if kind == "none":
        return (), []
    if spec.label != "auto":
        return (spec.label,) if isinstance(spec.label, str) else tuple(spec.label), []
    others = [name for name in table.column_names if name not in (spec.input, spec.id)]
    if kind == "class":
        classes = [name for name in others if isinstance(table.features[name], datasets.ClassLabel)]
        if classes:
            return (_only(classes, "label", table),), []
    usual = _usual(others, kind)
    if kind == "number":
        usual = [name for name in usual if _may_be_numbers(table, name)] or usual
    if not usual:
        return (_by_content(table, others, kind),), []
    best = [name for name in usual if name.lower() == usual[0].lower()]
    notes = []
    if len(best) == 1 and len(usual) > 1:
        notes = [f"The labels are the column {best[0]!r}, not {_named(usual[1:])}."]
    return (_only(best, "label", table),), notes


def _usual(columns: Sequence[str], kind: LabelKind) -> list[str]:
    names = LABEL_NAMES[kind]
    found = (name for name in columns if name.lower() in names)
    return sorted(found, key=lambda name: names.index(name.lower()))


def _by_content(table: datasets.Dataset, columns: Sequence[str], kind: LabelKind) -> str:
    """The only column that holds numbers, or lists, where labels are such; raises DataError where
    none fits."""
    refuse_columns_of_other_tasks(table)
    free = [name for name in columns if name.lower() not in _NO_INPUT]
    if kind == "number":
        numbers = [name for name in free if _is_number(table.features[name])]
        return _only(
            [name for name in numbers if table.features[name].dtype != "bool"], "label", table
        )
    ones, single = _columns_of_ones(table, free)
    if kind == "classes":
        lists = [name for name in free if is_list_column(table.features[name])]
        if lists:
            return _only(lists, "label", table)
        if ones:
            raise DataError(
                f"No column fits as label, but {_listed(ones)} hold 0 and 1. If these are the "
                f"classes, write label = {json.dumps(ones)} under [data]."
            )
    elif len(ones) > 1 and single:
        raise DataError(
            f"No column fits as label, but each row has a single 1 in the columns {_listed(ones)} "
            "(one-hot). Write one column of classes and name it as `label` under [data]."
        )
    elif len(ones) > 1:
        raise DataError(
            f"No column fits as label, but the columns {_listed(ones)} hold 0 and 1 (multi-hot). "
            f"{FOR_SEVERAL_CLASSES}, and label = {json.dumps(ones)} under [data]."
        )
    return _only([], "label", table)


def _listed(columns: Sequence[str]) -> str:
    return f"{', '.join(columns[:12])}{', ...' if len(columns) > 12 else ''}"


def _may_be_numbers(table: datasets.Dataset, column: str) -> bool:
    """Whether a column holds numbers, or texts of which the first is one."""
    feature = table.features[column]
    if not is_text_column(feature):
        return _is_number(feature)
    first = next((text for text in _first(table, column) if text), "")
    return is_number_text(first)


def input_column(
    rows: Rows, spec: DataSpec, labeled: Sequence[str], kind: LabelKind = "class"
) -> tuple[str, list[str]]:
    """The column of pictures if there is one, else of names of picture files, else of texts.

    Args:
        kind: Of the labels.

    Returns:
        The column, and notes on why it is this one where others might be meant.

    Raises:
        DataError: None fits, or several do, or the only one looks like a property, not a text.
    """
    table = rows.table
    if spec.input != "auto":
        return spec.input, []
    others = [
        name
        for name in table.column_names
        if name not in (*labeled, spec.id) and name.lower() not in _NO_INPUT
    ]
    pictures = [name for name in others if is_picture_column(table.features[name])]
    texts = [name for name in others if is_text_column(table.features[name])]
    files = [name for name in texts if not pictures and names_pictures(rows, name)]
    if pictures or files:
        what = "pictures" if pictures else "names of picture files"
        found, notes = _best(pictures or files, _FILE_NAMES, what, table)
        usual = [name for name in texts if name != found and name.lower() in _TEXT_NAMES]
        if usual:
            notes.append(f"The input is the column {found!r} of {what}, not {_named(usual)}.")
        return found, notes
    if kind == "none" and any(name.lower() in _SOURCE_NAMES for name in texts):
        return _best(texts, _SOURCE_NAMES, "texts", table)
    if not texts and spec.id is not None and _names_files(rows, spec.id):
        return spec.id, []  # names of files that are ids, too
    found, notes = _best(texts, _TEXT_NAMES, "texts", table)
    properties = [name for name in others if name != found]
    if found.lower() not in _TEXT_NAMES and properties and _looks_like_a_property(table, found):
        raise DataError(
            f"The column {found!r} is the only one of texts, but looks like a property beside "
            f"{_named(properties)}, not like the text to classify. Name the input as `input` "
            "under [data]."
        )
    return found, notes


def _names_files(rows: Rows, column: str) -> bool:
    features = rows.table.features
    return column in features and is_text_column(features[column]) and names_pictures(rows, column)


def _best(
    found: Sequence[str], usual: frozenset[str], kind: str, table: datasets.Dataset
) -> tuple[str, list[str]]:
    """The only column, or the only one with a usual name, which a note then says."""
    named = [name for name in found if name.lower() in usual]
    if len(found) > 1 and len(named) == 1:
        rest = [name for name in found if name != named[0]]
        return named[0], [
            f"The input is the column {named[0]!r}, by its name; {_named(rest)} "
            f"{'holds' if len(rest) == 1 else 'hold'} {kind}, too."
        ]
    return _only(found, "input", table), []


def _only(found: Sequence[str], key: str, table: datasets.Dataset) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} columns fit ({', '.join(found)})" if found else "no column fits"
    raise DataError(
        f"{problem[0].upper()}{problem[1:]} as {key}; the columns are "
        f"{', '.join(table.column_names)}. Name one as `{key}` under [data]."
    )


def _named(columns: Sequence[str]) -> str:
    shown = [repr(name) for name in columns[:5]]
    return ", ".join(shown) + (", ..." if len(columns) > 5 else "")


# --- what columns hold --------------------------------------------------------------------------


def is_text_column(feature: object) -> bool:
    """Whether a column holds texts."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def is_picture_column(feature: object) -> bool:
    """Whether a column holds pictures: their bytes, or also their paths."""
    return (
        isinstance(feature, datasets.Image)
        or (isinstance(feature, datasets.Value) and "binary" in feature.dtype)
        or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
    )


def is_list_column(feature: object) -> bool:
    """Whether a column holds lists."""
    return isinstance(feature, datasets.List | datasets.LargeList)


def _is_number(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(
        ("bool", "int", "uint", "float")
    )


def names_pictures(rows: Rows, column: str) -> bool:
    """Whether a column of texts names picture files, by suffix or by what the file holds."""
    if not is_text_column(rows.table.features[column]):
        return False
    first = next((text for text in _first(rows.table, column) if text), "")
    if Path(first).suffix.lower() in SUFFIXES:
        return True
    try:
        file = rows.folder / first
        return bool(first) and file.is_file() and is_picture(file)
    except OSError:  # a text too long for a name
        return False


def _first(table: datasets.Dataset, column: str) -> list[str | None]:
    few = table.select_columns([column]).with_format("arrow")
    return list(few[:_ROWS_TO_LOOK_AT][column].to_pylist())


def _looks_like_a_property(table: datasets.Dataset, column: str) -> bool:
    """Whether texts are of one or two words, or repeat: `Oslo`, `New York`, `Oslo`."""
    texts = [text for text in _first(table, column) if text]
    if not texts:
        return True
    short = sum(len(text.split()) <= 2 for text in texts)
    return 2 * short >= len(texts) or 2 * len(set(texts)) <= len(texts)


def _columns_of_ones(table: datasets.Dataset, columns: Sequence[str]) -> tuple[list[str], bool]:
    """Columns of 0 and 1 in the first rows, and whether each row has a single 1."""
    few = table.select(range(min(len(table), _ROWS_TO_LOOK_AT))).with_format("arrow")[:]
    numbers = [name for name in columns if _is_number(table.features[name])]
    found = [name for name in numbers if set(few[name].to_pylist()) <= {0, 1}]
    sums = [sum(row) for row in zip(*(few[name].to_pylist() for name in found), strict=True)]
    return found, bool(sums) and all(total == 1 for total in sums)
