"""Rows of numbers stored in 16, 8 or 4 bits each, read as float32.

A block of a row's numbers shares a scale, their largest size, so an outlier or a row of small
gradients does not cost the others their precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

Storage = Literal["float32", "float16", "int8", "int4"]
BLOCKS: Mapping[Storage, int] = MappingProxyType({"float16": 128, "int8": 128, "int4": 32})
"""Numbers that share a scale, itself a float32: a quarter of a bit for each of them, and a whole
bit for int4, whose few levels follow the sizes of fewer numbers better."""
_LEVELS: Mapping[Storage, int] = MappingProxyType({"int8": 127, "int4": 7})
_MIDDLE = 8
"""What the nibble of 0 holds: nibbles have no sign."""


def pack(rows: np.ndarray, storage: Storage) -> dict[str, np.ndarray]:
    """Tensors that hold rows `[n, p]` float32, for `unpack`.

    Returns:
        `features` alone (float32), or with `scales` `[n, p / block]` float32. Of int4, byte j of a
        row holds column j in its lower half and column p / 2 + j in its upper one; `width` `[1]`
        is p, which the bytes do not tell if it is odd.
    """
    if storage == "float32":
        return {"features": rows}
    n, p = rows.shape
    block = BLOCKS[storage]
    blocks = _in_blocks(rows, block)
    scales = np.abs(blocks).max(axis=2, initial=0)
    shares = blocks / np.where(scales > 0, scales, 1)[:, :, None]
    shares = shares.reshape(n, blocks.shape[1] * block)[:, :p]
    if storage == "float16":
        return {"features": shares.astype(np.float16), "scales": scales}
    levels = np.rint(shares * np.float32(_LEVELS[storage])).astype(np.int8)
    scales /= np.float32(_LEVELS[storage])
    if storage == "int8":
        return {"features": levels, "scales": scales}
    half = (p + 1) // 2
    nibbles = np.full((n, 2 * half), _MIDDLE, np.uint8)
    nibbles[:, :p] = (levels + _MIDDLE).astype(np.uint8)
    packed = nibbles[:, :half] | nibbles[:, half:] << 4
    return {"features": packed, "scales": scales, "width": np.array([p])}


def unpack(tensors: Mapping[str, np.ndarray]) -> np.ndarray | PackedRows:
    """What can be read like an array `[n, p]` of float32; the tensors may be memory-mapped."""
    numbers = tensors["features"]
    if "scales" not in tensors:
        return numbers
    width = int(tensors["width"][0]) if "width" in tensors else numbers.shape[1]
    return PackedRows(numbers, tensors["scales"], width)


def bytes_per_row(width: int, storage: Storage) -> int:
    """Bytes that a row takes on disk."""
    if storage == "float32":
        return 4 * width
    numbers = {"float16": 2 * width, "int8": width, "int4": (width + 1) // 2}[storage]
    return numbers + 4 * -(-width // BLOCKS[storage])


def largest_error(storage: Storage) -> float:
    """By how much a number can be off, as a share of the largest size in its block."""
    return {"float32": 0.0, "float16": 2.0**-12, "int8": 0.5 / 127, "int4": 0.5 / 7}[storage]


@dataclass(frozen=True)
class PackedRows:
    """Packed rows; `[rows]` and `[rows, columns]` give float32, with rows a slice or numbers.

    Attributes:
        numbers: float16 or int8 `[n, width]`, or uint8 `[n, width / 2]`.
        scales: `[n, width / block]` float32.
        width: Columns.
    """

    numbers: np.ndarray
    scales: np.ndarray
    width: int
    ndim = 2
    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.numbers), self.width

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        numbers, scales = self.numbers[rows], self.scales[rows]
        packed = numbers.dtype == np.uint8
        block = BLOCKS["int4" if packed else "int8"]
        out = np.empty((len(numbers), self.scales.shape[1] * block), np.float32)
        if packed:
            half = numbers.shape[1]
            np.subtract(numbers & 15, np.float32(_MIDDLE), out=out[:, :half])
            upper = out[:, half : self.width]
            np.subtract((numbers >> 4)[:, : upper.shape[1]], np.float32(_MIDDLE), out=upper)
        else:
            out[:, : self.width] = numbers
        out[:, self.width :] = 0
        blocks = out.reshape(len(out), self.scales.shape[1], block)
        blocks *= scales[:, :, None]
        return out[:, : self.width][:, columns]


def _in_blocks(rows: np.ndarray, block: int) -> np.ndarray:
    """Rows as `[n, blocks, block]`, filled up with 0."""
    count = -(-rows.shape[1] // block)
    missing = count * block - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))).reshape(len(rows), count, block)
