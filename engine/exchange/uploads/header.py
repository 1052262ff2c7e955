"""The header of a safetensors file from a stranger, read by us before anything is allocated.

The format: 8 bytes with the header's length, the header (JSON: name → dtype, shape, offsets), then
the tensors' bytes. Whatever the header says is compared with the file's size; nothing behind it is
read here. Importing this module imports neither torch nor safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.store.errors import UploadError

MAX_HEADER = 2 * 2**20
"""Bytes: some 15,000 tensors. Parsed JSON takes several times as much memory."""
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
"""The dtypes that weights may have → bytes of a number."""

_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
_CONVERT = "`dataloupe convert FILE`, on your own machine, makes safetensors of your own file."
_OTHERS = (
    (b"PK\x03\x04", f"is a zip archive, perhaps a .pt file under another name. {_CONVERT}"),
    (b"PK\x05\x06", "is an empty zip archive."),
    (b"\x93NUMPY", "is a NumPy array and no model."),
    (b"\x89HDF", "is an HDF5 file; only safetensors are taken."),
    (b"GGUF", "is a GGUF file; only safetensors are taken."),
    (b"\x1f\x8b", "is compressed with gzip; only plain safetensors are taken."),
    (b"BZh", "is compressed with bzip2; only plain safetensors are taken."),
    (b"\xfd7zXZ", "is compressed with xz; only plain safetensors are taken."),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; only plain safetensors are taken."),
    (b"\x7fELF", "is a program and no model."),
    (b"MZ", "is a program and no model."),
    (b"#!", "is a script and no model."),
    (b"%PDF", "is a PDF and no model."),
    (b"\x89PNG", "is a picture and no model."),
    (b"\xff\xd8\xff", "is a picture and no model."),
)
"""How other files begin → what to say of them."""


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor.

    Attributes:
        first, last: Its bytes, counted from the header's end.
    """

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def shown_name(name: str) -> str:
    """A file's original name as text to show: no path, no control characters, at most 80 of them.

    It is never a path of ours, and whoever puts it into HTML escapes it.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    printable = "".join(letter for letter in last if letter.isprintable()).strip()
    return (printable if len(printable) <= 80 else printable[:79] + "…") or "(no name)"


def read_header(path: Path, name: str, max_bytes: int) -> dict[str, Entry]:
    """The tensors that a file promises, all of them within it.

    Args:
        path: The file.
        name: What it is called in errors.
        max_bytes: The largest file that is taken.

    Raises:
        UploadError: It is no whole safetensors file, or a hostile one. One line, with `name`.
    """
    size = path.stat().st_size
    check_size(size, name, max_bytes)
    with path.open("rb") as file:
        start = file.read(16)
        _check_start(start, name)
        (length,) = struct.unpack("<Q", start[:8])
        if length > size - 8:
            raise UploadError(
                f"{name} is cut short or damaged: it has {size:,} bytes and promises a header of "
                f"{length:,}."
            )
        if length > MAX_HEADER:
            raise UploadError(
                f"{name} has a header of {length:,} bytes; at most {MAX_HEADER:,} are read."
            )
        file.seek(8)
        text = file.read(length)
    header = _parse(text, name)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise UploadError(f"{name} is damaged: its metadata are no texts by name.")
    if not header:
        raise UploadError(f"{name} holds no tensor.")
    if len(header) > MAX_TENSORS:
        raise UploadError(
            f"{name} holds {len(header):,} tensors; at most {MAX_TENSORS:,} are taken."
        )
    entries = {key: _entry(name, key, value) for key, value in header.items()}
    _check_places(entries, size - 8 - length, name)
    return entries


def check_size(size: int, name: str, max_bytes: int) -> None:
    """Refuse a file that is too large, before anything of it is read or copied."""
    if size > max_bytes:
        raise UploadError(
            f"{name} has {size / 2**20:,.0f} MiB; at most {max_bytes / 2**20:,.0f} MiB are taken "
            "(`max_mib` under [uploads] in study.toml)."
        )


def quoted(tensor: str) -> str:
    """A tensor's name for an error: short, on one line."""
    text = repr(tensor)
    return text if len(text) <= 60 else text[:57] + "…'"


def _check_start(start: bytes, name: str) -> None:
    for magic, what in _OTHERS:
        if start.startswith(magic):
            raise UploadError(f"{name} {what}")
    # A header's length may begin with a pickle's first byte, so look where the header is, too.
    if start[:1] == b"\x80" and start[8:9] != b"{":
        raise UploadError(
            f"{name} is a pickle (a .pt or .pkl file), which could run code and is never read. "
            f"{_CONVERT}"
        )
    if len(start) < 9:
        raise UploadError(f"{name} is {'empty' if not start else 'cut short'}.")
    if start[8:9] != b"{":
        raise UploadError(f"{name} is no safetensors file.")


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

    def no_number(constant: str) -> NoReturn:
        refuse(f"its header holds {constant}")

    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_number
        )
    except UnicodeDecodeError:
        refuse("its header is no UTF-8 text")
    except (ValueError, RecursionError):
        refuse("its header is no JSON")
    if not isinstance(header, dict):
        refuse("its header is no JSON object")
    return header


def _entry(name: str, key: str, value: Any) -> Entry:
    what = f"{name}: tensor {quoted(key)}"
    if not key or len(key) > 512 or not key.isprintable():
        raise UploadError(f"{what} has a name that no model's tensor has.")
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise UploadError(f"{what} is damaged: it must say dtype, shape and data_offsets alone.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UploadError(
            f"{what} has the dtype {quoted(str(dtype))}; taken are {', '.join(DTYPES)}."
        )
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise UploadError(
            f"{what} has no usable shape: at most {MAX_DIMENSIONS} whole numbers from 0 on."
        )
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UploadError(f"{what} has no usable data_offsets.")
    needed, place = math.prod(shape) * DTYPES[dtype], offsets[1] - offsets[0]
    if needed != place:
        raise UploadError(
            f"{what} is {dtype} of shape {_short(shape)}, {_bytes(needed)}, in a place of "
            f"{_bytes(place)}."
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(numbers: Any) -> bool:
    """Whether it is a list of whole numbers from 0 up to 2^63. JSON's true is no number."""
    return isinstance(numbers, list) and all(
        type(number) is int and 0 <= number < 2**63 for number in numbers
    )


def _short(shape: list[int]) -> str:
    return "[" + ", ".join(f"{n}" if n < 10**9 else f"{n:.2g}" for n in shape) + "]"


def _bytes(size: int) -> str:
    return f"{size:,} bytes" if size < 2**63 else "more bytes than can be"


def _check_places(entries: dict[str, Entry], data_bytes: int, name: str) -> None:
    """Tensors must lie one behind the other and fill the file."""
    end = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].first, item[1].last)):
        if entry.first != end:
            how = "overlaps another" if entry.first < end else "leaves a gap before it"
            raise UploadError(f"{name}: tensor {quoted(key)} {how}; tensors must lie in line.")
        end = entry.last
    if end != data_bytes:
        how = "is cut short" if end > data_bytes else "has something appended to it"
        raise UploadError(
            f"{name} {how}: its tensors take {_bytes(end)} and it has {data_bytes:,}."
        )
