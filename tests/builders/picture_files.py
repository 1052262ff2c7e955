"""Files that Pillow reads but does not write: 16-bit colors, and TIFFs of every kind."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

DEFLATE = 8


def content(data: bytes) -> dict[str, Any]:
    """A cell of an undecoded image column."""
    return {"bytes": data, "path": None}


def png16(values: np.ndarray) -> dict[str, Any]:
    """A PNG with 16 bits a value; the last axis has 2 (LA), 3 (RGB) or 4 (RGBA) channels."""
    height, width = values.shape[:2]
    kind = 0 if values.ndim == 2 else {2: 4, 3: 2, 4: 6}[values.shape[2]]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return content(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def tiff(values: np.ndarray, order: str = "<", compression: int = 1, **tags: int) -> dict[str, Any]:
    """A TIFF of one strip (or one for each plane).

    Args:
        order: `<` or `>`, of its bytes.
        compression: 1 for none, or `DEFLATE`.
        tags: `orientation`, `interpretation`, `planes` (2: separate), `extra` (kind of a fourth
            channel).
    """
    channels = 1 if values.ndim == 2 else values.shape[2]
    planes = [values]
    if tags.get("planes") == 2:
        planes = [values[..., channel] for channel in range(channels)]
    strips = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) if compression == DEFLATE else strip for strip in strips]
    starts = [8 + sum(map(len, strips[:place])) for place in range(len(strips))]
    data = b"".join(strips) + b"\0" * (sum(map(len, strips)) % 2)
    entries = {
        256: [values.shape[1]],
        257: [values.shape[0]],
        258: [values.dtype.itemsize * 8] * channels,
        259: [compression],
        262: [tags.get("interpretation", 2 if channels >= 3 else 1)],
        273: starts,
        274: [tags.get("orientation", 1)],
        277: [channels],
        278: [values.shape[0]],
        279: [len(strip) for strip in strips],
        284: [tags.get("planes", 1)],
        **({338: [tags["extra"]]} if "extra" in tags else {}),
        339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
    }
    after = 8 + len(data) + 2 + 12 * len(entries) + 4
    directory, beyond = struct.pack(f"{order}H", len(entries)), b""
    for tag, numbers in entries.items():
        body = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(body) > 4:
            body, beyond = struct.pack(f"{order}I", after + len(beyond)), beyond + body
        directory += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + body
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return content(head + data + directory + struct.pack(f"{order}I", 0) + beyond)
