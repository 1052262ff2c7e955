"""Parse the header of an untrusted safetensors file before anything is allocated.

The format: 8 bytes with the header's length, the header (JSON: name → dtype, shape, offsets), then
the tensors' bytes. All sizes in the header are checked against the file's size, and nothing after
the header is read. Importing this module imports neither torch nor safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.store.errors import UploadError
from engine.store.text import counted
from engine.training.weight_names import with_copies

MAX_HEADER = 2 * 2**20
"""Bytes, enough for about 15,000 tensors. Parsed JSON takes several times as much memory."""
MAX_TENSORS = 10_000
MAX_DIMENSIONS = 8
DTYPES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Allowed dtypes → bytes per number."""

_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
_CONVERT = "Convert your own file on your own machine with `dataloupe convert FILE`."
_IF_TORCH = (
    "If torch.save made it (.pt, .pth, .ckpt, .bin), convert it on your own machine with "
    "`dataloupe convert FILE`"
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", f"is a zip archive. {_IF_TORCH}; if somebody packed it, unpack it."),
    (b"PK\x05\x06", "is an empty zip archive."),
    (b"\x93NUMPY", "is a NumPy array, not a model."),
    (b"\x89HDF", "is an HDF5 file; only safetensors files are accepted."),
    (b"GGUF", "is a GGUF file; only safetensors files are accepted."),
    (b"\x1f\x8b", "is compressed with gzip; only uncompressed safetensors files are accepted."),
    (b"BZh", "is compressed with bzip2; only uncompressed safetensors files are accepted."),
    (b"\xfd7zXZ", "is compressed with xz; only uncompressed safetensors files are accepted."),
    (
        b"\x28\xb5\x2f\xfd",
        "is compressed with zstd; only uncompressed safetensors files are accepted.",
    ),
    (b"\x7fELF", "is a program, not a model."),
    (b"MZ", "is a program, not a model."),
    (b"#!", "is a script, not a model."),
    (b"%PDF", "is a PDF, not a model."),
    (b"\x89PNG", "is a picture, not a model."),
    (b"\xff\xd8\xff", "is a picture, not a model."),
)
"""(first bytes of another format, end of the error sentence)."""


@dataclass(frozen=True)
class Entry:
    """A tensor's entry in the header.

    Attributes:
        dtype: A key of `DTYPES`.
        first, last: Its range of bytes, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def shown_name(name: str) -> str:
    """A file's original name for display: no path, no control characters, at most 80 characters.

    It is never used as a path. HTML must escape it.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    printable = "".join(letter for letter in last if letter.isprintable()).strip()
    return (printable if len(printable) <= 80 else printable[:79] + "…") or "(no name)"


def read_header(path: Path, name: str, max_bytes: int) -> dict[str, Entry]:
    """Read a file's tensor entries, and check that the tensors fill the file exactly.

    Args:
        path: The file.
        name: The file's name in error messages.
        max_bytes: Size of the largest accepted file.

    Raises:
        UploadError: The file is not a complete, well-formed safetensors file. The message is one
            line that starts with `name`.
    """
    size = path.stat().st_size
    check_size(size, name, max_bytes)
    with path.open("rb") as file:
        start = file.read(16)
        _check_start(start, name)
        (length,) = struct.unpack("<Q", start[:8])
        if length > size - 8:
            raise UploadError(
                f"{name} is truncated or damaged: it has {_bytes(size)}, but declares a header of "
                f"{length:,}."
            )
        if length > MAX_HEADER:
            raise UploadError(
                f"{name} has a header of {length:,} bytes; at most {MAX_HEADER:,} are accepted."
            )
        file.seek(8)
        text = file.read(length)
    header = _parse(text, name)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise UploadError(f"{name} is damaged: its metadata is not a map from names to strings.")
    if not header:
        raise UploadError(f"{name} does not hold any tensors.")
    if len(header) > MAX_TENSORS:
        raise UploadError(
            f"{name} holds {len(header):,} tensors; at most {MAX_TENSORS:,} are accepted."
        )
    entries = {key: _entry(name, key, value) for key, value in header.items()}
    _check_ranges(entries, size - 8 - length, name)
    # Tied weights are written once; the metadata name the others (safetensors.torch.save_model).
    return entries | {key: entries[kept] for key, kept in with_copies(entries, metadata).items()}


def check_size(size: int, name: str, max_bytes: int) -> None:
    """Raise UploadError if a file is too large, before any of it is read or copied."""
    if size > max_bytes:
        raise UploadError(
            f"{name} has {size / 2**20:,.0f} MiB; at most {max_bytes / 2**20:,.0f} MiB are "
            "accepted (`max_mib` under [uploads] in study.toml)."
        )


def quoted(tensor: str) -> str:
    """A tensor's name for an error message, shortened and on one line."""
    text = repr(tensor)
    return text if len(text) <= 60 else text[:57] + "…'"


def _check_start(start: bytes, name: str) -> None:
    for magic, what in _OTHER_FORMATS:
        if start.startswith(magic):
            raise UploadError(f"{name} {what}")
    # A header's length may begin with the same byte as a pickle, so check the header's start too.
    if start[:1] == b"\x80" and start[8:9] != b"{":
        raise UploadError(
            f"{name} is a pickle (a .pt or .pkl file), which could run code and is never read. "
            f"{_CONVERT}"
        )
    if len(start) < 9:
        raise UploadError(f"{name} is {'empty' if not start else 'truncated'}.")
    if start[8:9] != b"{":
        raise UploadError(f"{name} is not a safetensors file. {_IF_TORCH}.")


def _parse(text: bytes, name: str) -> dict[str, Any]:
    def refuse(what: str) -> NoReturn:
        raise UploadError(f"{name} is damaged: {what}.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            refuse(f"its header has the key {quoted(twice)} twice")
        return found

    def refuse_constant(constant: str) -> NoReturn:
        refuse(f"its header holds {constant}")

    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse_constant
        )
    except UnicodeDecodeError:
        refuse("its header is not UTF-8 text")
    except (ValueError, RecursionError):
        refuse("its header is not JSON")
    if not isinstance(header, dict):
        refuse("its header is not a JSON object")
    return header


def _entry(name: str, key: str, value: Any) -> Entry:
    what = f"{name}: tensor {quoted(key)}"
    if not key or len(key) > 512 or not key.isprintable():
        raise UploadError(f"{what} has an invalid name: empty, too long or not printable.")
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise UploadError(
            f"{what} is damaged: its entry must have exactly dtype, shape and data_offsets."
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UploadError(
            f"{what} has dtype {quoted(str(dtype))}; accepted are {', '.join(DTYPES)}."
        )
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise UploadError(
            f"{what} has an invalid shape: it must be at most {MAX_DIMENSIONS} integers, 0 or more."
        )
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UploadError(f"{what} has invalid data_offsets: they must be its first and last byte.")
    needed, given = math.prod(shape) * DTYPES[dtype], offsets[1] - offsets[0]
    if needed != given:
        raise UploadError(
            f"{what} is {dtype} of shape {_short(shape)}, which takes {_bytes(needed)}, but its "
            f"data_offsets span {_bytes(given)}."
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(numbers: Any) -> bool:
    """Whether the value is a list of integers from 0 to 2^63 − 1. JSON's true is not an integer."""
    return isinstance(numbers, list) and all(
        type(number) is int and 0 <= number < 2**63 for number in numbers
    )


def _short(shape: list[int]) -> str:
    return "[" + ", ".join(f"{n}" if n < 10**9 else f"{n:.2g}" for n in shape) + "]"


def _bytes(size: int) -> str:
    return counted(size, "byte") if size < 2**63 else "more than 2^63 bytes"


def _check_ranges(entries: dict[str, Entry], data_bytes: int, name: str) -> None:
    """Check that the tensors' byte ranges are contiguous and fill the file."""
    end = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].first, item[1].last)):
        if entry.first != end:
            how = "overlaps another" if entry.first < end else "leaves a gap before it"
            raise UploadError(f"{name}: tensor {quoted(key)} {how}; tensors must be contiguous.")
        end = entry.last
    if end != data_bytes:
        how = "is truncated" if end > data_bytes else "has something appended to it"
        raise UploadError(
            f"{name} {how}: its tensors take {_bytes(end)}, but it has {data_bytes:,}."
        )
