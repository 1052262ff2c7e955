"""Training examples that an algorithm is not trained on: `without` under `[algorithms.NAME]`.

They stay part of the study, so that models trained with them and without them can be compared on
the same examples. Their scores are 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.store.cache import read_column_names
from engine.store.errors import SpecError
from engine.store.layout import table_file
from engine.study.examples import read_column
from engine.study.groups import emptied_groups
from engine.study.nearest import did_you_mean
from engine.study.reader import StudyReader


def left_out(study: StudyReader, algorithm: str) -> np.ndarray:
    """Training rows that hold one of the given values in every given column, ascending int64.

    Raises:
        SpecError: There is no such column or value, or too few examples would be left.
    """
    without = study.algorithms[algorithm].without
    if not without:
        return np.empty(0, np.int64)
    out = np.ones(study.dataset.n_train, bool)
    for column, values in without.items():
        out &= _holding(study, column, values, f"algorithms.{algorithm}.without")
    rows = np.flatnonzero(out)
    if len(rows) > len(out) - 2:
        raise SpecError(f"algorithms.{algorithm}.without leaves {len(out) - len(rows)} examples.")
    if emptied := emptied_groups(study, rows):
        raise SpecError(
            f"algorithms.{algorithm}.without names every training example of class {emptied[0]!r}, "
            "and a model cannot learn a class it never sees: keep at least one."
        )
    return rows


def trained_on(
    study: StudyReader, algorithm: str, removed: Iterable[int] = ()
) -> np.ndarray | None:
    """Training rows that models of an algorithm are trained on, ascending; None for all.

    Args:
        removed: Rows that are left out in addition.
    """
    out = np.union1d(left_out(study, algorithm), np.fromiter(removed, np.int64))
    return np.setdiff1d(np.arange(study.dataset.n_train), out) if len(out) else None


def _holding(study: StudyReader, column: str, values: list[str], key: str) -> np.ndarray:
    """Which training rows hold one of the values, bool `[n_train]`."""
    found = read_column(study, "train", column)
    if found is None:
        names = read_column_names(table_file(study.root, "train", 0))
        raise SpecError(
            f"{key}: the training split has no column {column!r}.{did_you_mean(column, names)} "
            f"It has {', '.join(names)}."
        )
    texts = pc.cast(found, pa.string())
    if missing := [value for value in values if not pc.any(pc.equal(texts, value)).as_py()]:
        raise SpecError(
            f"{key}: no training example has {column} = {missing[0]!r}."
            f"{did_you_mean(missing[0], texts.unique().drop_null().to_pylist()[:1000])}"
        )
    same: np.ndarray = pc.is_in(texts, value_set=pa.array(values, pa.string())).to_numpy()
    return same
