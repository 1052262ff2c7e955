"""Read matrices from files of other tools, a band of rows at a time.

The formats are `.npy` (under any file name), `.npz` and `.safetensors`. Nothing is unpickled, and a
file's header is checked against its size before its content is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine import store
from engine.store.errors import ImportingError, StoreError

_BFLOAT16 = np.dtype([("upper half of a float32", "<u2")])
_SAFETENSORS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": _BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
_PICKLES = (".pt", ".pth", ".pkl", ".bin")
_NUMBERS = "fiu"
"""Kinds of NumPy dtypes that can be scores."""


@dataclass(frozen=True)
class Matrix:
    """A matrix in a file.

    Attributes:
        shape: The array's shape in the file. It may have any number of axes; the caller checks.
        major: The axis that is cut into bands: 0 (rows), or 1 for an array in Fortran order.
        bands: (size) → all bands in order, float32 `[at most size, length of the other axis]`.
    """

    shape: tuple[int, ...]
    major: int
    bands: Callable[[int], Iterator[np.ndarray]]


def summed(matrices: Sequence[Matrix]) -> Matrix:
    """Return the sum of matrices of the same shape and order."""
    first = matrices[0]

    def bands(size: int) -> Iterator[np.ndarray]:
        others = [matrix.bands(size) for matrix in matrices[1:]]
        for total in first.bands(size):
            for other in others:  # one at a time, so that only two bands are in memory
                total += next(other)
            yield total

    return first if len(matrices) == 1 else Matrix(first.shape, first.major, bands)


def pick(path: Path, shapes: Mapping[str, tuple[int, ...]], name: str | None) -> str:
    """Return `name` if the file has it; for None, the name of its only array with two axes.

    Raises:
        ImportingError: There is no such array, or it is not clear which array is meant.
    """
    flat = [key for key, shape in shapes.items() if len(shape) == 2]
    if name is None and len(flat) == 1:
        return flat[0]
    if name is not None and name in shapes:
        return name
    held = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items()) or "nothing"
    if name is not None:
        raise ImportingError(f"{path} has no array {name!r}; it holds {held}.")
    if not flat:
        raise ImportingError(f"{path} does not hold a matrix; it holds {held}.")
    raise ImportingError(f"{path} holds {held}; choose the scores with --array.")


def open_matrix(path: Path, name: str | None = None) -> tuple[str, Matrix]:
    """Open one array of a `.npy`, `.npz` or `.safetensors` file.

    Args:
        path: The file.
        name: Name of the array, if the file has several with two axes.

    Returns:
        (name of the array, or "" for `.npy`; the matrix).

    Raises:
        ImportingError: The file cannot be read, or it is not clear which array is meant.
    """
    if path.is_dir():
        raise ImportingError(f"{path} is a folder; give the path of a file.")
    if path.suffix == ".npz":
        return open_npz(path, name)
    if path.suffix == ".safetensors":
        matrices = open_safetensors(path).matrices
        key = pick(path, {key: matrix.shape for key, matrix in matrices.items()}, name)
        return key, matrices[key]
    if path.suffix in _PICKLES:
        raise ImportingError(
            f"{path} is a pickle, which could run code and is never read. Run `dataloupe convert "
            f"{path}` and import the resulting .safetensors file."
        )
    return "", open_npy(path)


# --- NumPy -------------------------------------------------------------------------------------


def open_npy(path: Path) -> Matrix:
    """Open a `.npy` file.

    Raises:
        ImportingError: It is not a `.npy` file, holds objects, or is truncated.
    """
    with _opened(path) as file:
        shape, fortran, dtype = _npy_header(path, file)
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    found = path.stat().st_size
    if found != expected:
        why = "it is truncated" if found < expected else "something was appended to it"
        raise ImportingError(
            f"{path} has {found:,} bytes, but its header requires {expected:,}: {why}. Save the "
            "scores again."
        )
    return _npy_matrix(path, (shape, fortran, dtype), lambda: path.open("rb"))


def open_npz(path: Path, name: str | None = None) -> tuple[str, Matrix]:
    """Open the named array of a `.npz` file, or its only array with two axes; return both.

    Raises:
        ImportingError: It is not a `.npz` file or is damaged, or it is not clear which array is
            meant.
    """
    _opened(path).close()
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    headers[member.removesuffix(".npy")] = _npy_header(path, file)
    except _ZIP_ERRORS as error:
        raise ImportingError(f"{path} is not a complete .npz file: {error}.") from error
    key = pick(path, {name: header[0] for name, header in headers.items()}, name)
    member = f"{key}.npy"
    return key, _npy_matrix(path, headers[key], lambda: zipfile.ZipFile(path).open(member))


_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""Exceptions for archives that are damaged, encrypted or compressed by an unsupported method."""

_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


def _npy_header(path: Path, file: IO[bytes]) -> _Header:
    """Read (shape, whether in Fortran order, dtype), and stop where the numbers begin."""
    start = file.read(8)
    if not start.startswith(b"\x93NUMPY"):
        raise ImportingError(f"{path} is not a NumPy array{_actual_kind(start)}.")
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if start[6] not in readers:
        raise ImportingError(f"{path} is not a plain array of numbers (format {start[6]}).")
    try:
        shape, fortran, dtype = readers[start[6]](file)
    except ValueError as error:
        raise ImportingError(f"{path} has a damaged header. Save the scores again.") from error
    if dtype.hasobject:
        raise ImportingError(
            f"{path} holds Python objects, which could run code and are never unpickled; save "
            "plain numbers."
        )
    if dtype.kind not in _NUMBERS:
        raise ImportingError(f"{path} holds {dtype}; scores must be real numbers.")
    return shape, bool(fortran), dtype


def _npy_matrix(path: Path, header: _Header, opened: Callable[[], IO[bytes]]) -> Matrix:
    shape, fortran, dtype = header
    major = int(fortran and len(shape) == 2)

    def bands(size: int) -> Iterator[np.ndarray]:
        with opened() as file:
            _npy_header(path, file)
            yield from _bands(path, file, shape[major], shape[1 - major], dtype, size)

    return Matrix(shape, major, bands)


# --- safetensors -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensors:
    """The tensors of a `.safetensors` file by name, and the metadata of its header."""

    matrices: dict[str, Matrix]
    metadata: dict[str, str]


def open_safetensors(path: Path) -> Tensors:
    """Open all tensors of a `.safetensors` file.

    Raises:
        ImportingError: It is not a safetensors file, or its header does not match its content.
    """
    with _opened(path) as file:
        start = file.read(8)
    try:
        entries, metadata, first = store.read_header(path)
    except StoreError as error:
        raise ImportingError(
            f"{path} is not a complete safetensors file{_actual_kind(start)}."
        ) from error
    matrices = {name: _tensor(path, name, entry, first) for name, entry in entries.items()}
    return Tensors(matrices, {str(key): str(value) for key, value in metadata.items()})


def _tensor(path: Path, name: str, entry: Any, first: int) -> Matrix:
    try:
        shape, dtype = tuple(entry["shape"]), _SAFETENSORS.get(entry["dtype"])
        start, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ImportingError(f"{path}: the header entry of tensor {name!r} is damaged.") from error
    if dtype is None:
        raise ImportingError(
            f"{path}: tensor {name!r} is {entry['dtype']}; scores must be "
            f"{', '.join(_SAFETENSORS)}."
        )
    sizes = (start, end, *shape)
    if not all(type(size) is int and size >= 0 for size in sizes) or (
        end - start != math.prod(shape) * dtype.itemsize
    ):
        raise ImportingError(
            f"{path}: the shape of tensor {name!r} does not match its size in the file."
        )

    def bands(size: int) -> Iterator[np.ndarray]:
        with path.open("rb") as file:
            file.seek(first + start)
            yield from _bands(path, file, shape[0], shape[1], dtype, size)

    return Matrix(shape, 0, bands)


# --- both --------------------------------------------------------------------------------------


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ImportingError(f"{path} cannot be read: {error.strerror}.") from error


def _actual_kind(start: bytes) -> str:
    """End of an error sentence that identifies a file by its first bytes; empty if unknown."""
    if start.startswith(b"\x80"):
        return " but a pickle, which could run code and is never read"
    if start.startswith(b"PK"):
        return (
            " but an archive: rename a NumPy archive to .npz, or run `dataloupe convert` on a "
            "torch archive (.pt)"
        )
    return ""


def _bands(
    path: Path, file: IO[bytes], length: int, width: int, dtype: np.dtype[Any], size: int
) -> Iterator[np.ndarray]:
    """Read `length` rows of `width` numbers from the current position, `size` rows at a time."""
    for first in range(0, length, size):
        yield _read(path, file, (min(size, length - first), width), dtype)


def _read(path: Path, file: IO[bytes], shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    expected = math.prod(shape) * dtype.itemsize
    try:
        content = file.read(expected)
    except _ZIP_ERRORS as error:
        raise ImportingError(f"{path} is damaged: {error}.") from error
    if len(content) < expected:
        raise ImportingError(f"{path} is truncated. Save the scores again.")
    return _as_float32(np.frombuffer(content, dtype)).reshape(shape)


def _as_float32(numbers: np.ndarray) -> np.ndarray:
    """Return a float32 copy. Numbers that are too large for float32 become infinite."""
    if numbers.dtype == _BFLOAT16:
        widened: np.ndarray = numbers.view("<u2").astype(np.uint32) << 16
        return widened.view(np.float32)
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)
