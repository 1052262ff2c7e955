"""Which column of a source holds the further texts of its examples: captions, targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.data.columns import is_list_column, is_text_column
from engine.store.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_READ_ALREADY = ("input", "label", "id")
"""Columns that a source of this project has, whatever the source's own are."""
_OTHERS = (*_READ_ALREADY, "file", "split", "source_row")


def find_text_column(
    rows: Dataset, wanted: str, key: str, usual: Sequence[str], lists: bool = False
) -> str:
    """The column of further texts.

    Args:
        wanted: Its name in the source, or `auto`.
        key: The key under [task] that names it, such as `caption`.
        usual: Usual names, the best first.
        lists: Whether an example may have several texts.

    Raises:
        DataError: There is none, or several columns might be it.
    """
    columns: list[str] = rows.column_names
    if wanted != "auto":
        for name in (f"original_{wanted}", wanted):  # the source's own `label`, `file`, ...
            if name in columns and name not in _READ_ALREADY:
                return name
        shown = ", ".join(name for name in columns if name not in _OTHERS)
        raise DataError(f"There is no column {wanted!r} of {key}s; there are {shown or 'none'}.")
    texts = [
        name
        for name in columns
        if name not in _OTHERS
        and (is_text_column(rows.features[name]) or (lists and is_list_column(rows.features[name])))
    ]
    named = sorted(
        (name for name in texts if name.lower() in usual), key=lambda n: usual.index(n.lower())
    )
    found = named or texts
    if not found or (not named and len(found) > 1):
        problem = f"{len(found)} columns fit ({', '.join(found)})" if found else "No column fits"
        raise DataError(
            f"{problem} as {key}s; the columns are {', '.join(columns)}. Name one as `{key}` "
            "under [task]."
        )
    return found[0]
