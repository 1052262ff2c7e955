"""What a stranger's picture may cost, read from its bytes before any decoder sees them.

Some valid files take minutes: a PNG with 300,000 text chunks, a JPEG with a thousand scans, a
format whose decoder is written in Python. Each format has one function here, which reads only the
structure of the file: its pixels, how often they are gone over, and how many parts surround them.
What is over the budget is refused in milliseconds. Damage is left to the decoder, which runs under
a time limit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from engine.store.errors import DataError

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 25_000_000
"""Photos of phones have 12 or 24 million."""
MOST_PASSES = 300_000_000
"""Pixels × how often a decoder goes over them: about a second."""
MOST_PIXELS_IN_PYTHON = 500_000
"""For formats that Pillow decodes in Python, at about a million pixels a second."""
MOST_BYTES_IN_PYTHON = 2**20
MOST_PARTS = 512
"""Chunks, segments, tags or comments beside the pixels; cameras write a few dozen."""
MOST_DATA_PARTS = 40_000
"""Parts that hold the pixels: 20 MiB in blocks of 512 bytes."""
MOST_SUB_BLOCKS = 200_000
"""A GIF's blocks hold at most 255 bytes."""
MOST_SIDE_BYTES = 8 * 2**20
"""Bytes of everything beside the pixels, such as color profiles."""
MOST_HEADER = 4096
"""Bytes of the header of a PPM, with its comments."""
MOST_VALUES = 65_536
"""Values of one TIFF tag, such as its strips."""


@dataclass(frozen=True)
class Cost:
    """What decoding takes.

    Attributes:
        width, height: In pixels.
        passes: How often each pixel is gone over, compared with a baseline JPEG.
        in_python: Whether Pillow decodes it in Python.
    """

    width: int
    height: int
    passes: float = 1.0
    in_python: bool = False


def check_budget(content: bytes, where: str) -> None:
    """Refuse a picture that would take too long, or too much memory, to decode.

    Args:
        where: Names the example in errors.

    Raises:
        DataError: One line: what there is too much of, and what to do.
    """
    try:
        _check(content)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _check(content: bytes) -> None:
    if len(content) > MOST_BYTES:
        _refuse(f"has {len(content) / 2**20:,.1f} MiB", f"{MOST_BYTES // 2**20} MiB", "Shrink it.")
    reader = next((read for magic, read in _READERS.values() if magic.match(content)), None)
    if reader is None:
        raise DataError(
            f"the picture is damaged or no picture of a known format ({', '.join(FORMATS)})."
        )
    try:
        cost = reader(content)
    except (struct.error, IndexError):
        return  # truncated: the decoder says so
    pixels = cost.width * cost.height
    if pixels > MOST_PIXELS:
        _refuse(
            f"has {cost.width:,} × {cost.height:,} pixels",
            f"the {MOST_PIXELS:,} pixels of a live query",
            "Shrink it.",
        )
    if cost.in_python and (pixels > MOST_PIXELS_IN_PYTHON or len(content) > MOST_BYTES_IN_PYTHON):
        _refuse(
            f"is stored in a way that is slow to read, and has {pixels:,} pixels in "
            f"{len(content) / 2**20:,.1f} MiB",
            f"{MOST_PIXELS_IN_PYTHON:,} pixels or {MOST_BYTES_IN_PYTHON // 2**20} MiB",
            "Save it as PNG or JPEG.",
        )
    if pixels * cost.passes > MOST_PASSES:
        _refuse(
            f"goes over its {pixels:,} pixels too often ({cost.passes:,.0f} passes)",
            f"{MOST_PASSES:,} pixels in all",
            "Save it again as a baseline JPEG or PNG.",
        )


def _refuse(found: str, most: str, remedy: str) -> NoReturn:
    raise DataError(f"the picture {found}, more than {most}. {remedy}")


def _parts(count: int, most: int, what: str) -> None:
    if count > most:
        _refuse(f"has {count:,} or more {what}", f"{most:,}", "Save it again without them.")


def _side_bytes(count: int, what: str) -> None:
    if count > MOST_SIDE_BYTES:
        _refuse(
            f"has {count / 2**20:,.0f} MiB of {what}",
            f"{MOST_SIDE_BYTES // 2**20} MiB",
            "Save it again without them.",
        )


# --- one function a format ----------------------------------------------------------------------


def _png(content: bytes) -> Cost:
    width, height = struct.unpack_from(">II", content, 16)
    interlaced = content[28] == 1
    at, data, other, beside = 8, 0, 0, 0
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        if name in (b"IDAT", b"fdAT", b"fcTL"):
            data += 1
            _parts(data, MOST_DATA_PARTS, "blocks of pixels")
        else:
            other, beside = other + 1, beside + length
            _parts(other, MOST_PARTS, "chunks beside its pixels")
            _side_bytes(beside, "chunks beside its pixels")
        if name == b"IEND":
            break
    return Cost(width, height, 2 if interlaced else 1)


_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the size of a JPEG; those from C9 on are arithmetically coded, which is slower."""


def _jpeg(content: bytes) -> Cost:
    width = height = scans = parts = beside = 0
    slow = 1.0
    at = 2
    while found := _MARKER.search(content, at):
        marker, at = content[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", content, at)
        if marker in _FRAMES:
            height, width = (
                max(one, two)
                for one, two in zip(
                    (height, width), struct.unpack_from(">HH", content, at + 3), strict=True
                )
            )
            slow = 3.0 if marker > 0xC8 else slow
        if marker == 0xDA:
            scans += 1
            # Even without pixels, each scan costs a start.
            _parts(scans, MOST_PARTS, "scans")
        else:
            parts, beside = parts + 1, beside + length
            # Progressive files bring new tables with each scan.
            _parts(parts, MOST_PARTS + 8 * min(scans, 64), "segments beside its pixels")
            _side_bytes(beside, "segments beside its pixels")
        at += length
    return Cost(width, height, slow * max(1, scans))


def _gif(content: bytes) -> Cost:
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames = blocks = beside = 0
    while at < len(content) and frames < 2:  # Pillow looks at the second, to see if it moves
        kind = content[at]
        if kind == 0x21:
            at += 2
            for length in _sub_blocks(content, at):
                at += length + 1
                beside += 1
                _parts(beside, 8 * MOST_PARTS, "blocks beside its pixels")
            at += 1
        elif kind == 0x2C:
            frames += 1
            left, top, w, h, flags = struct.unpack_from("<HHHHB", content, at + 1)
            width, height = max(width, left + w), max(height, top + h)
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            for length in _sub_blocks(content, at):
                at += length + 1
                blocks += 1
                _parts(blocks, MOST_SUB_BLOCKS, "blocks of pixels")
            at += 1
        elif kind == 0x3B:
            break
        else:
            at += 1
            beside += 1
            _parts(beside, 8 * MOST_PARTS, "blocks beside its pixels")
    return Cost(width, height)


def _sub_blocks(content: bytes, at: int) -> Iterator[int]:
    while at < len(content) and content[at]:
        yield content[at]
        at += content[at] + 1


def _bmp(content: bytes) -> Cost:
    (size,) = struct.unpack_from("<I", content, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", content, 18)
        return Cost(width, height)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", content, 18)
    return Cost(abs(width), abs(height), in_python=compression in (1, 2))


_NUMBER = rb"(?:[\x09-\x0d ]|#[^\r\n]*[\r\n])+(\d{1,10})"
_PPM = re.compile(rb"P([0-6])" + _NUMBER + _NUMBER + rb"(?:" + _NUMBER + rb")?")


def _ppm(content: bytes) -> Cost:
    found = _PPM.match(content[:MOST_HEADER])
    if found is None:
        raise DataError(
            f"the picture's header is damaged, or longer than {MOST_HEADER:,} bytes. Save it again "
            "without comments."
        )
    kind, width, height, most = found.groups()
    plain = kind in b"123"
    scaled = kind in b"56" and most not in (b"255", b"65535")
    return Cost(int(width), int(height), in_python=plain or scaled)


_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value of each TIFF type."""


def _tiff(content: bytes) -> Cost:
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
    _parts(count, MOST_PARTS, "tags")
    at += 8 if big else 2
    width = height = 0
    for _ in range(count):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), content, at)
        if _SIZES.get(kind, 1) > 1 or tag in (273, 279, 324, 325):
            _parts(values, MOST_VALUES, "values of one tag")
        _side_bytes(values * _SIZES.get(kind, 1), "one tag")
        if tag in (256, 257):
            place = at + (12 if big else 8)
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, place)
            width, height = (value, height) if tag == 256 else (width, value)
        at += 20 if big else 12
    return Cost(width, height, 2)


def _webp(content: bytes) -> Cost:
    width = height = parts = 0
    passes, at = 16.0, 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        if name == b"VP8X":
            found = tuple(
                int.from_bytes(content[at + start : at + start + 3], "little") + 1
                for start in (12, 15)
            )
        elif name == b"VP8L":
            (bits,) = struct.unpack_from("<I", content, at + 9)
            found = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            passes = 24.0
        elif name == b"VP8 ":
            w, h = struct.unpack_from("<HH", content, at + 14)
            found = w & 0x3FFF, h & 0x3FFF
        else:
            found = 0, 0
        width, height = max(width, found[0]), max(height, found[1])
        parts += 1
        _parts(parts, MOST_PARTS, "chunks")
        at += 8 + length + (length & 1)
    return Cost(width, height, passes)


_SIZE_BOX = re.compile(rb"ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)


def _avif(content: bytes) -> Cost:
    width = height = parts = 0
    for parts, found in enumerate(_SIZE_BOX.finditer(content), 1):
        _parts(parts, MOST_PARTS, "tiles")
        w, h = (int.from_bytes(one, "big") for one in found.groups())
        width, height = max(width, w), max(height, h)
    return Cost(width, height, 24)


_READERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], Cost]]] = {
    kind: (re.compile(magic, re.DOTALL), read)
    for kind, magic, read in (
        ("BMP", rb"BM", _bmp),
        ("GIF", rb"GIF8[79]a", _gif),
        ("JPEG", rb"\xff\xd8\xff", _jpeg),
        ("PNG", rb"\x89PNG\r\n\x1a\n", _png),
        ("PPM", rb"P[0-6]", _ppm),
        ("TIFF", rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", _tiff),
        ("WEBP", rb"RIFF.{4}WEBP", _webp),
        ("AVIF", rb".{4}ftyp", _avif),
    )
}
FORMATS = tuple(sorted(_READERS))
"""Pillow's names of the formats that are read: those whose cost is known before decoding."""
