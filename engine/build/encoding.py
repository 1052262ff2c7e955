"""Rows → shards of arrays, columns and thumbnails; and the fingerprint of what came out."""

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
"""Rows whose undecoded pictures are held at once; a photo is some megabytes."""


@dataclass(frozen=True)
class EncodedShard:
    """Rows `start` to `start + len(ids)` of a split, encoded.

    Attributes:
        arrays: Name → array `[rows, ...]`: what the model is fed (see `tasks.Encoded`).
        ids: One unique id a row.
        columns: What the task shows, then every other plain column of the source; never `id`,
            `label` or `input`.
        thumbnails: One picture a row, or None where the task shows text.
    """

    start: int
    arrays: dict[str, np.ndarray]
    ids: list[str]
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
    """Encode a split of a `Source`, shard by shard; memory holds one shard and a few rows.

    Args:
        rows: `Source.train` or `Source.test`.
        options: The task's own, validated.
        encoding: What the task's `plan_encoding` chose on the training split.
        first: Row to begin with, to go on after shards that are there already.

    Raises:
        DataError: Names the example that cannot be encoded.
    """
    plain = _plain_columns(rows)
    for start in range(first, len(rows), rows_per_shard):
        stop = min(start + rows_per_shard, len(rows))
        arrays: dict[str, np.ndarray] = {}
        columns: dict[str, list[Any]] = {}
        thumbnails: list[Image] = []
        ids: list[str] = []
        for low in range(start, stop, _ROWS_AT_ONCE):
            chunk = rows[low : min(low + _ROWS_AT_ONCE, stop)]
            examples = [
                dict(zip(chunk, values, strict=True))
                for values in zip(*chunk.values(), strict=True)
            ]
            encoded = task.encode(examples, options, encoding)
            for name, part in encoded.arrays.items():
                # One array a shard, filled in place: joining parts would hold them twice.
                whole = arrays.setdefault(
                    name, np.empty((stop - start, *part.shape[1:]), part.dtype)
                )
                whole[low - start : low - start + len(part)] = part
            shown = {name: chunk[name] for name in plain} | encoded.columns
            for name, values in shown.items():
                columns.setdefault(name, []).extend(values)
            thumbnails.extend(encoded.thumbnails or ())
            ids.extend(chunk["id"])
        yield EncodedShard(start, arrays, ids, columns, thumbnails or None)


def _plain_columns(rows: datasets.Dataset) -> list[str]:
    """Columns of numbers, truth values, texts and times: what a table can show and filter by."""
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
    """Return 16 hex digits that stand for the encoded content of a dataset.

    Two datasets have one fingerprint if and only if their arrays (labels among them), ids, classes
    and encoding are equal in value and order. How rows were cut into shards, where they came from
    and which columns are shown beside them does not matter.

    Args:
        splits: Name → the split's shards in order, as (arrays, ids).
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
