"""Encode rows into shards of arrays, columns and thumbnails; fingerprint the encoded dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.store.errors import DataError

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

    from engine.tasks import Task

_ROWS_AT_ONCE = 64
"""Rows whose undecoded pictures are in memory at once; a photo takes several megabytes."""


@dataclass(frozen=True)
class EncodedShard:
    """The encoded rows `start` to `start + len(ids)` of a split.

    Attributes:
        arrays: Name → array `[rows, ...]`, the model's inputs (see `tasks.Encoded`).
        ids: One unique id per row.
        labels: Each row's label as the source gives it (`Source.train`).
        columns: Columns that the task displays, then every other plain column of the source; never
            `id`, `label` or `input`.
        thumbnails: One picture per row, or None if the task displays text.
    """

    start: int
    arrays: dict[str, np.ndarray]
    ids: list[str]
    labels: list[Any]
    columns: dict[str, list[Any]]
    thumbnails: list[Image] | None


def encode_split(
    rows: datasets.Dataset,
    task: Task,
    options: Any,
    encoding: dict[str, Any],
    rows_per_shard: int = 4096,
    first: int = 0,
) -> Iterator[EncodedShard]:
    """Encode a split of a `Source` shard by shard. Memory holds one shard and a few rows.

    Args:
        rows: `Source.train` or `Source.test`, without `input` if pictures are kept by reference.
        options: The task's validated options.
        encoding: The result of the task's `plan_encoding` on the training split.
        first: First row to encode; the shards before it already exist.

    Raises:
        DataError: An example cannot be encoded; the message names it.
    """
    plain = _plain_columns(rows)
    at_once = _ROWS_AT_ONCE if "input" in rows.column_names else rows_per_shard
    for start in range(first, len(rows), rows_per_shard):
        stop = min(start + rows_per_shard, len(rows))
        arrays: dict[str, np.ndarray] = {}
        columns: dict[str, list[Any]] = {}
        thumbnails: list[Image] = []
        ids: list[str] = []
        labels: list[Any] = []
        for low in range(start, stop, at_once):
            chunk = rows[low : min(low + at_once, stop)]
            examples = [
                dict(zip(chunk, values, strict=True))
                for values in zip(*chunk.values(), strict=True)
            ]
            encoded = task.encode(examples, options, encoding)
            for name, part in encoded.arrays.items():
                # One array per shard, filled in place: concatenating would need twice the memory.
                whole = arrays.setdefault(
                    name, np.empty((stop - start, *part.shape[1:]), part.dtype)
                )
                whole[low - start : low - start + len(part)] = part
            shown = {name: chunk[name] for name in plain} | encoded.columns
            for name, values in shown.items():
                columns.setdefault(name, []).extend(values)
            thumbnails.extend(encoded.thumbnails or ())
            ids.extend(chunk["id"])
            labels.extend(chunk["label"])
        yield EncodedShard(start, arrays, ids, labels, columns, thumbnails or None)


def _plain_columns(rows: datasets.Dataset) -> list[str]:
    """Columns of numbers, booleans, strings and times, which a table can show and filter by."""
    from datasets import ClassLabel, Value

    return [
        name
        for name, feature in rows.features.items()
        if name not in ("input", "label", "id")
        and isinstance(feature, Value | ClassLabel)
        and "binary" not in feature.dtype
    ]


def dataset_fingerprint(
    splits: Mapping[str, Iterable[tuple[Mapping[str, np.ndarray], Sequence[str]]]],
    classes: Sequence[str],
    encoding: Mapping[str, Any],
) -> str:
    """Return a fingerprint of the encoded content of a dataset, 16 hex digits.

    Two datasets have the same fingerprint if and only if their arrays (including labels), ids,
    classes and encoding are equal in value and order. The shard size, the source and the displayed
    columns do not matter.

    Args:
        splits: Name → the split's shards in order, as (arrays, ids).

    Raises:
        DataError: Shards of one array differ in dtype or shape, or from the number of ids.
    """
    digest = hashlib.sha256(json.dumps([list(classes), encoding], sort_keys=True).encode())
    for split in sorted(splits):
        hashes: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        names = hashlib.sha256()
        rows = 0
        for arrays, ids in splits[split]:
            rows += len(ids)
            names.update("".join(f"{json.dumps(id_)}\n" for id_ in ids).encode())
            for name, array in arrays.items():
                kind = f"{array.dtype.str}{array.shape[1:]}"
                if len(array) != len(ids) or kinds.setdefault(name, kind) != kind:
                    raise DataError(f"Shards of array {name!r} of {split} do not fit together.")
                content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                hashes.setdefault(name, hashlib.sha256()).update(content.data)
        contents = [[name, kinds[name], hashes[name].hexdigest()] for name in sorted(hashes)]
        digest.update(json.dumps([split, rows, names.hexdigest(), contents]).encode())
    return digest.hexdigest()[:16]
