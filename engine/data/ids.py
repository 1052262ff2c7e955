"""Ids as text, exactly as their source writes them: `0017` stays `0017`.

`engine.data.reading` keeps the texts of files; here numbers of other sources become texts.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from engine.store.errors import DataError
from engine.store.records import default_id


def read_ids(column: pa.ChunkedArray | None, split: str, name: str | None, rows: int) -> list[str]:
    """The ids of a split; those that Dataloupe makes where the source has no column of them.

    Raises:
        DataError: One is missing, or is neither a text nor a whole number.
    """
    if column is None:
        return [default_id(split, row) for row in range(rows)]
    try:
        # A whole number that may be missing is stored as a float by pandas.
        whole = pc.cast(column, pa.int64()) if pa.types.is_floating(column.type) else column
        ids = list(pc.cast(whole, pa.string()).to_pylist())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"Column {name!r} holds {column.type}, which is not an id; texts and whole numbers are."
        ) from error
    missing = next((row for row, id_ in enumerate(ids) if not id_), None)
    if missing is not None:
        raise DataError(f"Row {missing} of the {split} split has no id (column {name!r}).")
    return ids
