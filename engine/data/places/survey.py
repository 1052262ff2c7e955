"""One reading of every picture: a digest of its bytes, and what its header tells.

A truncated JPEG or PNG lacks its end marker. Only what lacks it, and formats without one, are
decoded in full here; so a survey costs little more than reading the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.pictures import Header, read_header, read_picture
from engine.data.places.place import Place, place_of, read_bytes
from engine.store.errors import DataError

DIGEST_BYTES = 16
_TAIL = 65_536
"""Where an end marker is looked for: some cameras write after it."""


@dataclass(frozen=True)
class Surveyed:
    """What a survey keeps of a picture."""

    digest: bytes
    header: Header


def digest_of(content: bytes) -> bytes:
    """A digest of an encoded picture, of `DIGEST_BYTES`."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def survey(places: Sequence[str | None], ids: Sequence[str], folder: Path | None) -> list[Surveyed]:
    """Read pictures once.

    Args:
        ids: Of the examples, for errors.
        folder: The source's; a link in it may not lead out of it.

    Raises:
        DataError: A picture is missing, damaged, too large, or outside of the source.
    """
    inside = _Inside(folder)
    found = []
    for text, id_ in zip(places, ids, strict=True):
        where = f"example {id_!r}"
        if text is None:
            raise DataError(f"{where}: the picture is missing (the row holds no path).")
        place = place_of(text)
        inside.check(place, where)
        content = read_of(text, where)
        row = {"bytes": content, "path": str(place)}
        header = read_header(row, where)
        if not _ends(content):
            read_picture(row, where, between=(0.0, 1.0))
        found.append(Surveyed(digest_of(content), header))
    return found


def read_of(text: str, where: str) -> bytes:
    """The bytes at a place. Raises DataError, which names the example."""
    place = place_of(text)
    try:
        content = read_bytes(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{where}: the picture {place} does not exist.") from error
    except OSError as error:
        raise DataError(
            f"{where}: the picture {place} cannot be read: {error.strerror}."
        ) from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if not content:
        raise DataError(f"{where}: the picture {place} is empty.")
    return content


def _ends(content: bytes) -> bool:
    """Whether a picture is known to be whole by its end."""
    if content.startswith(b"\xff\xd8"):
        return (
            content.endswith(b"\xff\xd9") or content.rfind(b"\xff\xd9", -_TAIL) > len(content) // 2
        )
    if content.startswith(b"\x89PNG"):
        return b"IEND" in content[-16:]
    return False


class _Inside:
    """Refuses files that lie in the source's folder by name, and elsewhere by a link.

    A million files are looked at, so paths are texts here: `Path` would take longer than a header.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._start = f"{folder}{os.sep}"
        self._inside: set[str] = set()
        """Folders that are where they seem to be, or elsewhere in the source."""

    def check(self, place: Place, where: str) -> None:
        """Refuse such a file.

        Raises:
            DataError: It is one.
        """
        if self._folder is None or not place.file.startswith(self._start):
            return  # named in full, by the person or the table
        parent = place.file.rpartition(os.sep)[0]
        if parent not in self._inside and self._holds(Path(parent)):
            self._inside.add(parent)
        if parent in self._inside and not os.path.islink(place.file):  # noqa: PTH114
            return
        if not self._holds(Path(place.file)):
            file = Path(place.file).resolve()
            raise DataError(
                f"{where}: {place.file} leads to {file}, outside of {self._folder}. A study that "
                "keeps pictures by reference follows no link out of its source: copy the file "
                "there, name the folder that holds it as `source`, or set "
                'pictures = "copy" under [data].'
            )

    def _holds(self, path: Path) -> bool:
        """Whether a path really is in the source's folder, whatever links are on the way."""
        assert self._folder is not None
        return path.resolve().is_relative_to(self._folder.resolve())
