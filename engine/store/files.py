"""The three formats of a study, and two guarantees for every file: complete and traceable.

*Complete*: a file is written under a temporary name in its own folder, flushed to disk, then
renamed. A file that exists is therefore complete, so an interrupted build resumes by skipping it.

*Traceable*: every file carries the fingerprint of everything it was made from and a checksum of its
content. A file whose fingerprint does not match is refused by name, never mixed with other results.

Tensors are safetensors, tables are Parquet, texts for people are JSON. Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.store.errors import DataloupeError, StaleError, StoreError

FINGERPRINT_KEY = "dataloupe.fingerprint"
CHECKSUM_KEY = "dataloupe.checksum"
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


def fingerprint_of(*parts: Any) -> str:
    """Return 16 hex digits that stand for `parts` (anything JSON can hold; keys are sorted)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Report in one line where writing failed, for files that people save or export."""
    try:
        yield
    except OSError as error:
        raise DataloupeError(f"{path} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def atomic(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it is fsynced and renamed onto `path`.

    A failure (a full disk, too) removes the temporary file and leaves the old file untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _locked_temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"The disk is full: {path} could not be written. Nothing is lost; free some space "
                "and run the same command again, which continues from here."
            ) from error
        raise
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
    for leftover in folder.rglob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError), leftover.open("rb") as file:
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
    digest = hashlib.sha256()
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
        digest.update(_bytes_of(array))
    header = _header(entries, digest.hexdigest(), fingerprint, metadata)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for array in arrays.values():
            file.write(_bytes_of(array))


def _header(
    entries: Mapping[str, Any], checksum: str, fingerprint: str, metadata: Mapping[str, Any] | None
) -> bytes:
    header_metadata = {
        FINGERPRINT_KEY: fingerprint,
        CHECKSUM_KEY: checksum,
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
    unknown = _header(entries, "0" * hashlib.sha256().digest_size * 2, fingerprint, None)
    with atomic(path) as temporary, temporary.open("w+b") as file:
        file.write(unknown)
        file.truncate(len(unknown) + size)
        yield MatrixFile(file, len(unknown), shape)
        file.seek(len(unknown))
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(_header(entries, checksum, fingerprint, None))


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """Read a shard's header: (tensor entries, metadata, offset of the first tensor's bytes).

    Raises:
        StoreError: The file is missing, truncated, or not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise broken(path, "it is cut short")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(_MAX_HEADER, size - 8):
                raise broken(path, "its header is cut short or damaged")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing. `dataloupe build` makes it again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise broken(path, "its header is damaged") from error
    if size != 8 + length + end:
        raise broken(path, f"it has {size} bytes, but its header says {8 + length + end}")
    return header, metadata, 8 + length


def broken(path: Path, why: str) -> StoreError:
    """The error for a broken file, with the way to repair it."""
    return StoreError(
        f"{path} is broken: {why}. `dataloupe doctor STUDY --repair` removes only this file, and "
        "the next `dataloupe build` makes it again."
    )


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
    entries, metadata, start = read_header(path)
    if fingerprint is not None:
        check_fingerprint(path, metadata.get(FINGERPRINT_KEY, ""), fingerprint)
    arrays: dict[str, np.ndarray] = {}
    digest = hashlib.sha256()
    for name, entry in sorted(entries.items()):
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        first, last = entry["data_offsets"]
        if last - first != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise broken(path, f"the size of tensor {name!r} does not match its shape")
        if first == last:
            arrays[name] = np.empty(shape, dtype)
        else:
            arrays[name] = np.memmap(path, dtype, "r", start + first, shape)
        if verify:
            digest.update(_bytes_of(arrays[name]))
    if verify and metadata.get(CHECKSUM_KEY) != digest.hexdigest():
        raise broken(path, "its content does not match its checksum")
    return arrays


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
    """The metadata of a shard: how it was made."""
    return dict(json.loads(read_header(path)[1].get(METADATA_KEY, "{}")))


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
        CHECKSUM_KEY: _table_digest(table),
    }
    table = table.replace_schema_metadata(metadata)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


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
        verify: Also compare its checksum, which covers names and types of columns too; this
            needs all columns.

    Raises:
        StoreError: Missing or broken. StaleError: Another fingerprint.
    """
    try:
        table = pq.read_table(path, columns=columns, page_checksum_verification=True)
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing. `dataloupe build` makes it again.") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError, AttributeError) as error:
        raise broken(path, "it is not a complete Parquet table of a study") from error
    if fingerprint is not None:
        check_fingerprint(path, metadata.get(FINGERPRINT_KEY, ""), fingerprint)
    if verify and metadata.get(CHECKSUM_KEY) != _table_digest(table):
        raise broken(path, "its content does not match its checksum")
    return table


def _table_digest(table: pa.Table) -> str:
    """SHA-256 of column names, types and values; the layout of the file does not matter."""
    import pandas as pd

    digest = hashlib.sha256(str([(field.name, str(field.type)) for field in table.schema]).encode())
    if table.num_columns:
        rows = pd.util.hash_pandas_object(table.to_pandas(), index=False)
        digest.update(rows.to_numpy().tobytes())
    return digest.hexdigest()


# --- texts for people --------------------------------------------------------------------------


def write_json(path: Path, content: Mapping[str, Any], fingerprint: str) -> None:
    """Write indented JSON that carries its fingerprint and a checksum of its content."""
    body = {
        key: value for key, value in content.items() if key not in (FINGERPRINT_KEY, CHECKSUM_KEY)
    }
    body = {FINGERPRINT_KEY: fingerprint, CHECKSUM_KEY: fingerprint_of(body), **body}
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def json_fingerprint(path: Path) -> str:
    """The fingerprint that a JSON file carries. Raises as `read_json`."""
    read_json(path)
    return str(json.loads(path.read_text(encoding="utf-8"))[FINGERPRINT_KEY])


def read_json(path: Path, fingerprint: str | None = None) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        StoreError: Missing or broken. StaleError: Another fingerprint.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, checksum = content.pop(FINGERPRINT_KEY), content.pop(CHECKSUM_KEY)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing. `dataloupe build` makes it again.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise broken(path, "it is not a complete JSON file of a study") from error
    if checksum != fingerprint_of(content):
        raise broken(path, "its content does not match its checksum")
    if fingerprint is not None:
        check_fingerprint(path, found, fingerprint)
    return dict(content)
