"""Fingerprints of a source's rows before anything is decoded, which show what has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from engine.data.places.place import place_of

if TYPE_CHECKING:
    import datasets

_ROWS_AT_ONCE = 1024


def raw_fingerprints(
    rows: datasets.Dataset, rows_per_shard: int, classes: Sequence[str], encoding: Mapping[str, Any]
) -> list[str]:
    """A fingerprint (16 hex digits) of each shard of a split, which changes with any row or order.

    For pictures in files of their own, the size and the time of the last change count, not the
    content.

    Args:
        rows: `Source.train` or `Source.test`.
        rows_per_shard: A multiple of 1024, or at least the number of rows.
        classes, encoding: Meaning of labels and arrays; they are part of every fingerprint.
    """
    head = json.dumps([list(classes), dict(encoding)], sort_keys=True).encode()
    digests = [hashlib.sha256(head) for _ in range(-(-len(rows) // rows_per_shard))]
    for number, batch in enumerate(rows.with_format("arrow").iter(_ROWS_AT_ONCE)):
        table = batch.combine_chunks().replace_schema_metadata()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        digest = digests[number * _ROWS_AT_ONCE // rows_per_shard]
        digest.update(sink.getvalue())
        if pa.types.is_struct(table.schema.field("input").type):
            states: dict[str, str] = {}
            for path in table["input"].combine_chunks().field("path").to_pylist():
                file = None if path is None else place_of(path).file
                if file is not None and file not in states:
                    states[file] = _state(file)
                digest.update((states[file] if file is not None else "-").encode())
    return [digest.hexdigest()[:16] for digest in digests]


def _state(path: str) -> str:
    try:
        state = Path(path).stat() if Path(path).is_absolute() else None
    except (OSError, ValueError):
        state = None
    if state is None:
        return "-"  # in the table, or missing: then encoding raises the error
    return f"{state.st_size} {state.st_mtime_ns}"
