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
from engine.study.examples import FILE, TEXT, read_columns
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
        column: One of `group_columns`; None: the class. Examples without a value are in "".
    """
    if column is None and study.dataset.labels != "class":
        return None
    values = read_columns(study, split, [column or "label"])[column or "label"]
    if column is None:
        found: np.ndarray = values.to_pandas().to_numpy(object)
        return found
    return np.array(["" if one is None else str(one) for one in values.to_pylist()], object)


def group_members(
    study: StudyReader, split: Split, column: str | None = None
) -> dict[str, np.ndarray]:
    """Name of each group that occurs → whether each example is in it, bool `[n]`; sorted.

    Args:
        column: As in `read_groups`. Examples without a value are in no group.
    """
    groups = read_groups(study, split, column)
    if groups is None:
        return {}
    names = sorted(set(groups) - ({""} if column else set()))
    return {str(name): groups == name for name in names}


def emptied_groups(study: StudyReader, removed: np.ndarray) -> list[str]:
    """Groups that have no training example left without the removed rows, sorted."""
    groups = read_groups(study, "train")
    if groups is None:
        return []
    return sorted({str(name) for name in set(groups) - set(np.delete(groups, removed))})


def read_group_numbers(study: StudyReader, split: Split) -> np.ndarray:
    """Number of each example's group, int64 `[n]`; without groups all are in one."""
    groups = read_groups(study, split)
    if groups is None:
        return np.zeros(study.dataset.rows(split), np.int64)
    found: np.ndarray = np.unique(groups, return_inverse=True)[1]
    return found
