"""WebDataset shards: tar files in which one name is one example, and the suffix says which part.

    cat/0001.jpg  cat/0001.cls  cat/0001.json

The picture stays where it is: only its place is read. `.cls` is the label, `.txt` a text, and a
`.json` of plain values gives a column for each of its keys. Without `.cls`, the folder is the
label. Nothing is ever unpacked.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa

from engine.data.pictures import SUFFIXES
from engine.data.places.place import SEPARATOR, in_tar
from engine.data.reading.rows import Rows, as_dataset
from engine.store.errors import DataError

SUFFIX: Final = ".tar"
_LABELS: Final = (".cls", ".cls.txt", ".label")
_TEXTS: Final = (".txt", ".caption")
_JSON: Final = ".json"
_MOST_TEXT: Final = 2**20
"""Bytes of a part that is no picture."""
_NUMBER: Final = re.compile(r"[-_.]?(\d+)(?:-of-(\d+))?")
_LEFT_OUT: Final = 5
_BLOCK: Final = 512


@dataclass
class _Sample:
    """The parts of one example."""

    place: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def tar_shards(folder: Path, split: str) -> list[Path]:
    """The tar files that are named like a split: `train.tar`, or all of `train-000000.tar`, ….

    Raises:
        DataError: One number is missing.
    """
    found: list[tuple[int, Path]] = []
    of: set[int] = set()
    for path in folder.glob(f"{split}*{SUFFIX}"):
        rest = path.name.removeprefix(split).removesuffix(SUFFIX)
        number = _NUMBER.fullmatch(rest)
        if rest == "":
            return [path]
        if number is not None:
            found.append((int(number[1]), path))
            of |= {int(number[2])} if number[2] else set()
    numbers = sorted(number for number, _ in found)
    last = max([numbers[-1] + 1, *of]) if numbers else 0
    missing = sorted(set(range(numbers[0] if numbers else 0, last)) - set(numbers))
    if missing:
        raise DataError(f"{folder} has no shard number {missing[0]} of {split}{SUFFIX}, of {last}.")
    return [path for _, path in sorted(found)]


def read_tar(files: Sequence[Path]) -> Rows:
    """The examples of tar files, in order.

    Raises:
        DataError: One is damaged or compressed, holds what is no plain file, or a name that leads
            out of it; or an example has no picture or no label that others have.
    """
    samples: dict[str, _Sample] = {}
    left_out: dict[str, None] = {}
    for file in files:
        for key, sample in _samples(file, left_out).items():
            if key in samples:
                raise DataError(f"{file} has the example {key!r} again, which another shard has.")
            samples[key] = sample
    if not samples:
        raise DataError(f"{files[0]} holds no pictures.")
    names = list(dict.fromkeys(name for sample in samples.values() for name in sample.values))
    columns: dict[str, list[Any]] = {
        name: [sample.values.get(name) for sample in samples.values()] for name in names
    }
    if "label" not in columns:
        folders = [str(PurePosixPath(key).parent) for key in samples]
        if "." not in folders:
            columns["label"] = folders
    places = pa.array([sample.place for sample in samples.values()], pa.string())
    pictures = pa.StructArray.from_arrays(
        [pa.nulls(len(places), pa.binary()), places], names=["bytes", "path"]
    )
    try:
        table = pa.table({"image": pictures, **columns})
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{files[0]}: a .json has values of several types: {reason}") from error
    notes = []
    if left_out:
        some = ", ".join([*left_out][:_LEFT_OUT])
        notes = [f"Not read in {files[0].name}: parts {some}{', …' * (len(left_out) > _LEFT_OUT)}."]
    return Rows(as_dataset(table), files[0].parent, tuple(notes))


def _samples(file: Path, left_out: dict[str, None]) -> dict[str, _Sample]:
    """The examples of one tar file by name."""
    samples: dict[str, _Sample] = {}
    with file.open("rb") as content:
        for member in _members(file):
            key, suffix = _key_and_suffix(member.name)
            sample = samples.setdefault(key, _Sample())
            if suffix in SUFFIXES:
                if sample.place:
                    raise DataError(f"{file} has two pictures for the example {key!r}.")
                sample.place = in_tar(str(file), member.offset_data, member.size, member.name)
            elif suffix in (*_LABELS, *_TEXTS, _JSON):
                if member.size > _MOST_TEXT:
                    raise DataError(
                        f"{file}: {member.name} has more than {_MOST_TEXT >> 20} MiB of text."
                    )
                content.seek(member.offset_data)
                sample.values |= _values(file, member, suffix, content.read(member.size))
            else:
                left_out[suffix or member.name] = None
    lacking = next((key for key, one in samples.items() if not one.place and one.values), None)
    if lacking is not None:
        raise DataError(f"{file} has no picture for the example {lacking!r}.")
    return {key: sample for key, sample in samples.items() if sample.place}


def _values(file: Path, member: tarfile.TarInfo, suffix: str, content: bytes) -> dict[str, Any]:
    """The columns that a part gives."""
    try:
        text = content.decode().strip()
        if suffix in _LABELS:
            return {"label": int(text) if re.fullmatch(r"-?\d{1,18}", text) else text}
        if suffix in _TEXTS:
            return {"text": text}
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: {member.name} cannot be read: {reason}.") from error
    plain = (str, int, float, bool, type(None))
    if not isinstance(found, dict):
        raise DataError(f"{file}: {member.name} is no JSON object.")
    return {name: value for name, value in found.items() if isinstance(value, plain)}


def _key_and_suffix(name: str) -> tuple[str, str]:
    """`cat/0001.seg.png` → (`cat/0001`, `.seg.png`), as WebDataset has it."""
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), f"{dot}{suffix.lower()}"


def _members(file: Path) -> Iterator[tarfile.TarInfo]:
    """The plain files in a tar file, each of which lies where its header says.

    Raises:
        DataError: One does not, or is no plain file.
    """
    size, last = file.stat().st_size, -1
    try:
        with file.open("rb") as content, tarfile.open(fileobj=content, mode="r:") as tar:
            while (member := tar.next()) is not None:
                _check(file, member, size, last)
                last = member.offset
                if member.isreg() and not _is_hidden(member.name):
                    yield member
                tar.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
            content.seek(tar.offset)  # type: ignore[attr-defined]
            if content.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(f"{file} has no end mark, so it is cut off. Copy it again.")
    except tarfile.TarError as error:
        with file.open("rb") as content:
            start = content.read(6)
        if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise DataError(
                f"{file} is compressed, so pictures inside cannot be found by place: decompress it."
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file} is no whole tar file ({reason}). Copy it again.") from error


def _check(file: Path, member: tarfile.TarInfo, size: int, last: int) -> None:
    name = member.name
    if member.offset <= last or member.size < 0:
        raise DataError(f"{file} is damaged: the header of {name!r} leads back. Copy it again.")
    if member.isdir():
        return
    if SEPARATOR in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise DataError(
            f"{file} has a member {name!r}, whose name leads out of it. Pack it again with names "
            "below one folder."
        )
    if member.issym() or member.islnk():
        raise DataError(
            f"{file}: {name} is a link to {member.linkname}, not a file. Pack it again with "
            "`tar --dereference --hard-dereference`."
        )
    if not member.isreg() or member.issparse():
        raise DataError(f"{file}: {name} is no plain file. Pack it again without it.")
    if member.offset_data + member.size > size:
        raise DataError(
            f"{file}: {name} should have {member.size:,} bytes, and the file ends before. Copy it "
            "again."
        )


def _is_hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")
