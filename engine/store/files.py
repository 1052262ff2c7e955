"""The three formats of a study, and two guarantees for every file: complete and traceable.

*Complete*: a file is written under a temporary name in its own folder, flushed to disk, then
renamed. A file that exists is therefore complete, so an interrupted build resumes by skipping it.

*Traceable*: every file carries the fingerprint of everything it was made from and a checksum of all
its bytes (`engine.store.seal`). A file whose fingerprint does not match is refused by name, never
mixed with other results.

Tensors are safetensors, tables are Parquet, texts for people are JSON. Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.store.errors import StaleError, StoreError
from engine.store.io_errors import reading_store, writing_store
from engine.store.seal import (
    BLANK,
    CHECKSUM_KEY,
    Finder,
    is_whole,
    place_in_header,
    place_in_shard,
    place_in_table,
    place_in_text,
    seal,
)
from engine.store.walk import files_below

FINGERPRINT_KEY = "dataloupe.fingerprint"
METADATA_KEY = "dataloupe.metadata"

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "BOOL": np.dtype("?"),
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100 * 2**20
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What parsing a damaged header or text can raise."""


def fingerprint_of(*parts: Any) -> str:
    """Return 16 hex digits that stand for `parts` (anything JSON can hold; keys are sorted)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it is fsynced and renamed onto `path`.

    A failure removes the temporary file and leaves the old file untouched.

    Raises:
        StoreError: The disk is full, the folder cannot be written, or whatever else the system
            refused, in one line.
    """
    with writing_store(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _locked_temporary(path)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """A new temporary file next to `path`, and the descriptor that keeps it from being removed as
    a leftover while it is open."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        fcntl.flock(handle, fcntl.LOCK_EX)
        if Path(name).exists():  # and was not removed before it was locked
            return handle, Path(name)
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left under `folder`.

    A file that is being written, by whichever process, is locked and stays.
    """
    gone_or_of_others = contextlib.suppress(FileNotFoundError, PermissionError)
    for leftover in (one for one in files_below(folder) if one.match(".*.tmp")):
        with gone_or_of_others, leftover.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            leftover.unlink(missing_ok=True)


# --- tensors -----------------------------------------------------------------------------------


def write_tensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    fingerprint: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write arrays as one safetensors shard.

    Args:
        path: The shard's final name.
        tensors: Name to array; any dtype of the safetensors format.
        fingerprint: Fingerprint of everything the arrays depend on.
        metadata: How the arrays were made (JSON; part of the header, so it must be the same
            whenever the arrays are, or two builds would not be byte-identical).
    """
    arrays: dict[str, np.ndarray] = {}
    entries: dict[str, Any] = {}
    offset = 0
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype not in _DTYPE_NAMES:
            raise StoreError(
                f"{path}: tensor {name!r} is {array.dtype}, which a shard cannot hold."
            )
        arrays[name] = array
        entries[name] = {
            "dtype": _DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    header = _header(entries, fingerprint, metadata)
    digest = hashlib.sha256(header)
    for array in arrays.values():
        digest.update(_bytes_of(array))
    place = place_in_header(header)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(header[:place] + digest.hexdigest().encode() + header[place + len(BLANK) :])
        for array in arrays.values():
            file.write(_bytes_of(array))


def _header(
    entries: Mapping[str, Any], fingerprint: str, metadata: Mapping[str, Any] | None
) -> bytes:
    """The header with zeros for the checksum; it comes first, so that nothing is taken for it."""
    header_metadata = {
        CHECKSUM_KEY: BLANK,
        FINGERPRINT_KEY: fingerprint,
        METADATA_KEY: json.dumps(metadata or {}, sort_keys=True),
    }
    header = json.dumps(
        {"__metadata__": header_metadata, **entries}, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 64)
    return struct.pack("<Q", len(header)) + header


class MatrixFile:
    """A float32 matrix on disk, filled a block at a time and never held in memory.

    Attributes:
        shape: Its rows and columns.
    """

    def __init__(self, file: BinaryIO, start: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._file, self._start = file, start

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Put a block with its first score at (row, column)."""
        numbers = np.ascontiguousarray(block, "<f4")
        width = self.shape[1]
        # Whole rows lie in one piece.
        for at, piece in enumerate([numbers] if numbers.shape[1] == width else numbers):
            self._file.seek(self._start + 4 * ((row + at) * width + column))
            self._file.write(_bytes_of(piece))


@contextlib.contextmanager
def filling_matrix(
    path: Path, name: str, shape: tuple[int, int], fingerprint: str
) -> Iterator[MatrixFile]:
    """Write a shard with one float32 matrix, which may be larger than memory, a block at a time.

    Args:
        path: The shard's final name; it exists once the `with` block has ended without an error.
        name: Of the tensor.
        shape: Of the matrix; all of it must be written.
        fingerprint: As for `write_tensors`.
    """
    size = 4 * shape[0] * shape[1]
    entries = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}
    header = _header(entries, fingerprint, None)
    with atomic(path) as temporary, temporary.open("w+b") as file:
        file.write(header)
        file.truncate(len(header) + size)
        yield MatrixFile(file, len(header), shape)
        seal(file, place_in_shard)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """Read a shard's header: (tensor entries, metadata, offset of the first tensor's bytes).

    Raises:
        StoreError: The file is missing, truncated, or not a safetensors file.
    """
    with reading_store(path), path.open("rb") as file:
        return _read_header(path, file)


def _read_header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], dict[str, str], int]:
    try:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        if len(prefix) < 8:
            raise broken(path, "it is cut short")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MAX_HEADER, size - 8):
            raise broken(path, "its header is cut short or damaged")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        total = 8 + length + end
    except _DAMAGE as error:
        raise broken(path, "its header is damaged") from error
    if size != total:
        raise broken(path, f"it has {size} bytes, but its header says {total}")
    return header, metadata, 8 + length


def broken(path: Path, why: str) -> StoreError:
    """The error for a broken file, with the way to repair it."""
    return StoreError(
        f"{path} is broken: {why}. `dataloupe doctor STUDY --repair` removes only this file, and "
        "the next `dataloupe build` makes it again."
    )


def _check_seal(path: Path, find: Finder) -> None:
    with reading_store(path):
        whole = is_whole(path, find)
    if not whole:
        raise broken(path, "its content does not match its checksum")


def read_tensors(
    path: Path, fingerprint: str | None = None, verify: bool = False
) -> dict[str, np.ndarray]:
    """Memory-map a shard: name to read-only array. Takes no memory until it is read.

    Args:
        path: The shard.
        fingerprint: The fingerprint it must carry; None takes any.
        verify: Also read it all and compare its checksum.

    Raises:
        StoreError: Missing or broken. StaleError: Another fingerprint.
    """
    # All from one open file: another one of this name may take its place at any time.
    with reading_store(path), path.open("rb") as file:
        entries, metadata, start = _read_header(path, file)
        if verify:
            _check_seal(path, place_in_shard)
        if fingerprint is not None:
            check_fingerprint(path, metadata.get(FINGERPRINT_KEY, ""), fingerprint)
        return {one: _map_tensor(path, file, start, one, entries[one]) for one in sorted(entries)}


def _map_tensor(
    path: Path, file: BinaryIO, start: int, name: str, entry: dict[str, Any]
) -> np.ndarray:
    try:
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        first, last = entry["data_offsets"]
        size = dtype.itemsize * math.prod(shape)
        if min((first, last, *shape)) < 0 or last - first != size:
            raise ValueError
        if first == last:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", start + first, shape)
    except _DAMAGE as error:
        raise broken(path, f"the header's entry of tensor {name!r} is damaged") from error


def is_there(path: Path, fingerprint: str) -> bool:
    """Whether a shard exists. Raises as `read_tensors` if it is broken or stale."""
    if path.exists():
        read_tensors(path, fingerprint)
        return True
    return False


def tensors_fingerprint(path: Path) -> str:
    """The fingerprint that a shard carries. Raises as `read_header`."""
    return read_header(path)[1].get(FINGERPRINT_KEY, "")


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a shard: how it was made. Raises as `read_header`."""
    try:
        return dict(json.loads(read_header(path)[1].get(METADATA_KEY, "{}")))
    except _DAMAGE as error:
        raise broken(path, "its header is damaged") from error


def check_fingerprint(path: Path, found: str, wanted: str) -> None:
    """Raise StaleError unless `found` is `wanted`."""
    if found != wanted:
        raise StaleError(
            f"{path} was made from another spec, other data or other code "
            f"(fingerprint {found or 'none'}, expected {wanted}).",
            path,
        )


# --- tables ------------------------------------------------------------------------------------


def write_table(path: Path, table: pa.Table, fingerprint: str) -> None:
    """Write a Parquet table with page checksums; fingerprint and checksum lie in its metadata."""
    metadata = {
        **(table.schema.metadata or {}),
        FINGERPRINT_KEY: fingerprint,
        CHECKSUM_KEY: BLANK,
    }
    table = table.replace_schema_metadata(metadata)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        with temporary.open("r+b") as file:
            seal(file, place_in_table)


def read_table(
    path: Path,
    fingerprint: str | None = None,
    columns: list[str] | None = None,
    verify: bool = False,
) -> pa.Table:
    """Read a Parquet table; its page checksums are verified on the way.

    Args:
        path: The table.
        fingerprint: The fingerprint it must carry; None takes any.
        columns: Read only these.
        verify: Also read all of it and compare its checksum.

    Raises:
        StoreError: Missing or broken. StaleError: Another fingerprint.
    """
    if verify:
        _check_seal(path, place_in_table)
    try:
        with reading_store(path):
            table = pq.read_table(path, columns=columns, page_checksum_verification=True)
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    except (pa.ArrowException, OSError, *_DAMAGE) as error:
        raise broken(path, "it is not a complete Parquet table of a study") from error
    if fingerprint is not None:
        check_fingerprint(path, metadata.get(FINGERPRINT_KEY, ""), fingerprint)
    return table


# --- texts for people --------------------------------------------------------------------------


def write_json(path: Path, content: Mapping[str, Any], fingerprint: str) -> None:
    """Write indented JSON that carries its fingerprint and its checksum."""
    body = {
        key: value for key, value in content.items() if key not in (FINGERPRINT_KEY, CHECKSUM_KEY)
    }
    body = {CHECKSUM_KEY: BLANK, FINGERPRINT_KEY: fingerprint, **body}
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with temporary.open("r+b") as file:
            seal(file, place_in_text)


def json_fingerprint(path: Path) -> str:
    """The fingerprint that a JSON file carries. Raises as `read_json`."""
    read_json(path)
    return str(json.loads(path.read_text(encoding="utf-8"))[FINGERPRINT_KEY])


def read_json(path: Path, fingerprint: str | None = None) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        StoreError: Missing or broken. StaleError: Another fingerprint.
    """
    _check_seal(path, place_in_text)
    try:
        with reading_store(path):
            content = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop(FINGERPRINT_KEY)
        del content[CHECKSUM_KEY]
    except _DAMAGE as error:
        raise broken(path, "it is not a complete JSON file of a study") from error
    if fingerprint is not None:
        check_fingerprint(path, found, fingerprint)
    return dict(content)
