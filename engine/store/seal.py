"""One checksum for every byte of a file, kept inside the file.

The SHA-256 stands in one place of the file as 64 hexadecimal digits. It is computed over the whole
file, header, names and fingerprint included, with zeros in that place. A file and its checksum are
one file, so a kill, a full disk or a copy cannot separate them, and readers of the three formats
see an ordinary entry of their metadata.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

CHECKSUM_KEY = "dataloupe.checksum"
BLANK = "0" * 64
"""Written first, and replaced by the checksum when the rest of the file is there."""
_CHUNK = 2**20
_TAIL = 8
_MAX_FOOTER = 256 * 2**20

Finder = Callable[[BinaryIO], int]
"""Returns where the digits stand in an open file, or −1."""


def place_in_header(header: bytes) -> int:
    """Where the digits stand in the header of a safetensors file, its length included."""
    return _after(f'"{CHECKSUM_KEY}":"'.encode(), header)


def place_in_shard(file: BinaryIO) -> int:
    """Where the digits stand in a safetensors file."""
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    file.seek(0)
    return place_in_header(file.read(min(8 + length, _MAX_FOOTER)))


def place_in_table(file: BinaryIO) -> int:
    """Where the digits stand in a Parquet file: in its footer, as an entry of the metadata."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    (length,) = struct.unpack("<I", file.read(4))
    start = size - _TAIL - min(length, _MAX_FOOTER)
    if start < 0:
        return -1
    file.seek(start)
    # In Thrift's compact protocol: the key, the type of the next field, and its length.
    found = _after(CHECKSUM_KEY.encode() + b"\x18\x40", file.read())
    return -1 if found < 0 else start + found


def place_in_text(file: BinaryIO) -> int:
    """Where the digits stand in a JSON file."""
    file.seek(0)
    return _after(f'"{CHECKSUM_KEY}": "'.encode(), file.read(_CHUNK))


def _after(marker: bytes, content: bytes) -> int:
    found = content.find(marker)
    return -1 if found < 0 else found + len(marker)


def digest_of(file: BinaryIO, place: int) -> str:
    """SHA-256 of an open file with zeros where its digits stand."""
    digest = hashlib.sha256()
    file.seek(0)
    left = place
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            return ""
        digest.update(chunk)
        left -= len(chunk)
    digest.update(BLANK.encode())
    file.seek(place + len(BLANK))
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def seal(file: BinaryIO, find: Finder) -> None:
    """Put the checksum into a file that is open for reading and writing and otherwise complete."""
    place = find(file)
    checksum = digest_of(file, place)
    file.seek(place)
    file.write(checksum.encode())


def is_whole(path: Path, find: Finder) -> bool:
    """Whether a file's content matches its checksum. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        try:
            place = find(file)
        except struct.error:  # shorter than any file of its kind
            return False
        if place < 0:
            return False
        file.seek(place)
        return file.read(len(BLANK)) == digest_of(file, place).encode()
