"""Where a picture lies, as one text: a file; or a file, what leads to the picture in it, a name.

    /data/train/cat/1.jpg
    /data/train-0001.tar␟t1536+48213␟cat/1.jpg           offset and size in bytes
    /data/train.parquet␟p3:17:image.bytes␟1.jpg          row group, row in it, column
    /data/train.parquet␟b4096+48213␟1.jpg                the same, by offset and size

␟ is the unit separator, which names of files do not have.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from engine.data.places.parquet import read_cell
from engine.store.errors import DataError

SEPARATOR = "\x1f"
MOST_BYTES = 256 * 2**20
"""Of one encoded picture."""
_BYTES = re.compile(r"[tb](\d+)\+(\d+)", re.ASCII)
_IN_PARQUET = re.compile(r"p(\d+):(\d+):(.+)", re.ASCII)


@dataclass(frozen=True)
class Place:
    """A place, taken apart.

    Attributes:
        file: The file on disk.
        inside: What leads to the picture in it; empty if the file is the picture.
        name: Of the picture in the file.
    """

    file: str
    inside: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        return SEPARATOR.join((self.file, self.inside, self.name)) if self.inside else self.file

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of a table."""
        return self.inside.startswith(("p", "b"))

    def __str__(self) -> str:
        """For people."""
        if not self.inside:
            return self.file
        if (found := _IN_PARQUET.fullmatch(self.inside)) is not None:
            return f"row {found[2]} of row group {found[1]} in {self.file}"
        name = self.name or f"byte {self.inside[1:].partition('+')[0]}"
        return f"{name} in {self.file}"


def place_of(text: str) -> Place:
    """The parts of a place."""
    return Place(*text.split(SEPARATOR, 2))


def in_tar(file: str, offset: int, size: int, name: str) -> str:
    """The place of a member of a tar file."""
    return Place(file, f"t{offset}+{size}", name).text


def in_parquet(file: str, group: int, row: int, column: str, name: str) -> str:
    """The place of a cell of a Parquet file."""
    return Place(file, f"p{group}:{row}:{column}", name).text


def in_cell_bytes(file: str, offset: int, size: int, name: str) -> str:
    """The place of a cell of a Parquet file whose bytes lie there as they are."""
    return Place(file, f"b{offset}+{size}", name).text


def source_folder(source: str, base: Path) -> Path | None:
    """Where the paths of a source start; None if it is not a file or folder."""
    path = base / Path(source).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None


def below(text: str, folder: Path | None) -> str:
    """The place with a path that starts in the folder, if it lies there: what a study keeps."""
    start = f"{folder}{os.sep}"
    return text.removeprefix(start) if folder is not None else text


def from_folder(text: str, folder: Path | None) -> str:
    """The reverse of `below`."""
    return text if folder is None or text.startswith(os.sep) else f"{folder}{os.sep}{text}"


def read_bytes(text: str) -> bytes:
    """The encoded picture at a place.

    Raises:
        DataError: It is larger than any picture, what holds it is cut off, or it is no file: a
            pipe or a device, which a study from somebody else may name, would be read forever.
        OSError: The file cannot be read.
    """
    place = place_of(text)
    mode = Path(place.file).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder fails by itself
        raise DataError(f"{place.file} is not a file.")
    if (found := _BYTES.fullmatch(place.inside)) is not None:
        return _read(place, int(found[1]), int(found[2]))
    if (found := _IN_PARQUET.fullmatch(place.inside)) is not None:
        return read_cell(place.file, int(found[1]), int(found[2]), found[3])
    return _read(place, 0, None)


def _read(place: Place, offset: int, size: int | None) -> bytes:
    with Path(place.file).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size if size is None else size
        if size > MOST_BYTES:
            raise DataError(
                f"{place} has {size / 2**20:,.0f} MiB, more than the {MOST_BYTES // 2**20} MiB "
                "that a picture may have. Shrink it."
            )
        parts, left = [], size
        while left and (part := os.pread(file.fileno(), left, offset + size - left)):
            parts.append(part)
            left -= len(part)
    if left:
        raise DataError(f"{place}: the file ends before the picture does. Copy it again.")
    return parts[0] if len(parts) == 1 else b"".join(parts)
