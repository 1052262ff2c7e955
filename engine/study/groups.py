"""Groups of examples: the classes, or the values of another column of the data.

Measurements are summed by group, and no class is ever removed whole from the training data. Any
column with few values can be a group (`group_columns`). Where nothing is chosen, groups are the
classes; where labels are no classes, there are none.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.store import layout
from engine.store.cache import FileCache, read_column_names
from engine.store.errors import UnknownName
from engine.store.layout import Split
from engine.study.examples import FILE, TEXT, read_column, read_columns
from engine.study.nearest import did_you_mean
from engine.study.reader import StudyReader

MOST_GROUPS = 50
"""A column with more values than this is no group."""
_OWN = ("id", "label", "source_row", FILE, TEXT)
"""Columns that every study may have, which are no groups of examples."""
_KNOWN: FileCache[dict[str, tuple[str, ...]]] = FileCache(most=64)


def group_columns(study: StudyReader) -> dict[str, tuple[str, ...]]:
    """Columns that can be a group, beside the label → their values in the test split, sorted.

    See `values_of_group`.
    """
    return _KNOWN.get(layout.table_file(study.root, "test", 0), lambda: _group_columns(study))


def _group_columns(study: StudyReader) -> dict[str, tuple[str, ...]]:
    names = read_column_names(layout.table_file(study.root, "test", 0))
    columns = {n: read_columns(study, "test", [n])[n] for n in names if n not in _OWN}
    values = {name: values_of_group(column) for name, column in columns.items()}
    return {name: found for name, found in values.items() if found}


def values_of_group(column: pa.ChunkedArray) -> tuple[str, ...]:
    """The values of a column that can be a group, sorted; empty if it can not.

    It holds texts, whole numbers or yes and no: 2 to `MOST_GROUPS` values, of which each has two
    examples or more on average.
    """
    kind = column.type
    named = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (named or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return ()
    values = column.drop_null()
    if not 2 <= pc.count_distinct(values).as_py() <= min(MOST_GROUPS, len(values) // 2):
        return ()
    return tuple(sorted(map(str, values.unique().to_pylist())))


def resolve_group(study: StudyReader, column: str) -> str:
    """A column that can be a group, by its name.

    Raises:
        UnknownName: There is none of that name.
    """
    known = list(group_columns(study))
    if column not in known:
        hint = did_you_mean(column, known)
        has = f"there is {', '.join(known)}" if known else "this study has no such column"
        raise UnknownName(
            f"Examples cannot be grouped by {column!r}: {has}. A column can be a group if it has "
            f"2 to {MOST_GROUPS} values in the test split.{hint}",
            hint,
        )
    return column


def read_groups(study: StudyReader, split: Split, column: str | None = None) -> np.ndarray | None:
    """Name of each example's group, `[n]` of `str`; None if the study has no groups.

    Args:
        column: One of `group_columns`; None: the class. Examples without a value are in "", as are
            those of a split without the column.
    """
    coded = _coded(study, split, column)
    if coded is None:
        return None
    numbers, names = coded
    found: np.ndarray = np.array(names, object)[numbers]
    return found


def group_members(
    study: StudyReader, split: Split, column: str | None = None
) -> dict[str, np.ndarray]:
    """Name of each group that occurs → whether each example is in it, bool `[n]`; sorted.

    Args:
        column: As in `read_groups`. Examples without a value are in no group.
    """
    coded = _coded(study, split, column)
    if coded is None:
        return {}
    numbers, names = coded
    return {name: numbers == place for place, name in enumerate(names) if name or column is None}


def group_names(study: StudyReader, split: Split, column: str) -> list[str]:
    """Names of the groups of a column that occur, sorted. Examples without a value are in none."""
    coded = _coded(study, split, column)
    return [] if coded is None else [name for name in coded[1] if name]


def emptied_groups(study: StudyReader, removed: np.ndarray) -> list[str]:
    """Groups that have no training example left without the removed rows, sorted."""
    coded = _coded(study, "train")
    if coded is None:
        return []
    numbers, names = coded
    left = np.bincount(np.delete(numbers, removed), minlength=len(names))
    return [names[place] for place in np.flatnonzero(left == 0).tolist()]


def read_group_numbers(study: StudyReader, split: Split) -> np.ndarray:
    """Number of each example's group, int64 `[n]`; without groups all are in one."""
    coded = _coded(study, split)
    return np.zeros(study.dataset.rows(split), np.int64) if coded is None else coded[0]


def _coded(
    study: StudyReader, split: Split, column: str | None = None
) -> tuple[np.ndarray, list[str]] | None:
    """Number of each example's group, int64 `[n]`, and the names of the groups that occur, sorted;
    None if the study has no groups. Arguments as of `read_groups`."""
    if column is None and study.dataset.labels != "class":
        return None
    values = read_column(study, split, column or "label")
    if values is None:  # the other split has it
        return np.zeros(study.dataset.rows(split), np.int64), [""]
    encoded = values.combine_chunks().dictionary_encode()
    every = [*map(str, encoded.dictionary.to_pylist()), ""]
    places = pc.fill_null(encoded.indices, len(every) - 1).to_numpy()
    names = sorted({every[place] for place in np.unique(places).tolist()})
    rank = {name: place for place, name in enumerate(names)}
    return np.array([rank.get(name, -1) for name in every], np.int64)[places], names
