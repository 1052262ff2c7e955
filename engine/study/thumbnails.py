"""Thumbnails of a study: cut from its sprite sheets, or, by reference, made when first seen.

Those that are made are kept in memory, the least recently seen dropped first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from engine.data.fitting import in_parallel
from engine.data.thumbnails import SPRITES_PER_SHEET, cut_thumbnails, sprite_sheet
from engine.store import layout
from engine.store.errors import DataError, StoreError
from engine.store.layout import Split
from engine.study.references import has_references, referenced_pictures

if TYPE_CHECKING:
    from engine.study.reader import StudyReader

MOST_BYTES = 128 * 2**20
"""Of thumbnails in memory: several thousand."""
_Key = tuple[Path, str, Split, int]


def read_thumbnails(study: StudyReader, split: Split, rows: Sequence[int]) -> list[Image.Image]:
    """The thumbnails of some rows, in their order; each stored sheet is read once.

    Raises:
        DataError: A picture has changed, or no sheet holds a row.
        OSError: A sheet is missing or damaged.
    """
    if has_references(study):
        made = _made(study, split, rows)
        for one in made:
            if isinstance(one, DataError):
                raise one
        return [one for one in made if not isinstance(one, DataError)]
    return cut_thumbnails(partial(layout.sprite_file, study.root, split), rows, study.dataset.cell)


def read_thumbnail(study: StudyReader, split: Split, row: int) -> Image.Image:
    """One example's thumbnail. Raises as `read_thumbnails`."""
    return read_thumbnails(study, split, [row])[0]


@dataclass(frozen=True)
class Sheet:
    """A sprite sheet as WebP.

    Attributes:
        whole: Whether no picture of it is missing or has changed; a crossed box stands for each.
    """

    content: bytes
    whole: bool = True


def read_sheet(study: StudyReader, split: Split, number: int) -> Sheet:
    """A sprite sheet of consecutive rows. Raises as `gathered_sheet`."""
    if not has_references(study):
        return Sheet(layout.sprite_file(study.root, split, number).read_bytes())
    first = number * SPRITES_PER_SHEET
    rows = range(first, min(first + SPRITES_PER_SHEET, study.dataset.rows(split)))
    if not rows:
        raise StoreError(f"{study.root} has no sprite sheet {number} of {split}.")
    return gathered_sheet(study, split, rows)


def gathered_sheet(study: StudyReader, split: Split, rows: Sequence[int]) -> Sheet:
    """A sprite sheet of any 1 to 64 rows, in their order.

    Raises:
        DataError: There are too many rows.
        StoreError: The split has no such row.
        OSError: A stored sheet is missing or damaged.
    """
    cell = study.dataset.cell
    if not has_references(study):
        return Sheet(sprite_sheet(read_thumbnails(study, split, rows), cell))
    found = _made(study, split, rows)
    pictures = [_crossed_box(cell) if isinstance(one, DataError) else one for one in found]
    whole = not any(isinstance(one, DataError) for one in found)
    return Sheet(sprite_sheet(pictures, cell), whole)


def _crossed_box(cell: int) -> Image.Image:
    """What stands for a picture that cannot be shown."""
    box = Image.new("RGB", (cell, cell), (232, 232, 232))
    draw = ImageDraw.Draw(box)
    for start, end in (((0, 0), (cell, cell)), ((0, cell), (cell, 0))):
        draw.line([start, end], (150, 150, 150), max(1, cell // 24))
    draw.rectangle((0, 0, cell - 1, cell - 1), outline=(150, 150, 150))
    return box


# --- by reference ---------------------------------------------------------------------------------


class _Kept:
    """Thumbnails that were made, up to a number of bytes. Threads share it."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._pictures: OrderedDict[_Key, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> Image.Image | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def keep(self, key: _Key, picture: Image.Image) -> None:
        with self._lock:
            if key in self._pictures:
                return
            self._pictures[key] = picture
            self._bytes += _size(picture)
            while self._bytes > self._most:
                self._bytes -= _size(self._pictures.popitem(last=False)[1])


_KEPT = _Kept(MOST_BYTES)


def _size(picture: Image.Image) -> int:
    return picture.width * picture.height * len(picture.getbands())


def _made(study: StudyReader, split: Split, rows: Sequence[int]) -> list[Image.Image | DataError]:
    """Thumbnails, or why there is none."""
    pictures = referenced_pictures(study, split)
    if any(not 0 <= row < len(pictures) for row in rows):
        raise StoreError(f"{study.root} has no such pictures of {split}.")

    def one(row: int) -> Image.Image | DataError:
        key = study.root, study.dataset.fingerprint, split, row
        found = _KEPT.get(key)
        if found is None:
            try:
                found = pictures.thumbnail(row).convert("RGB")
            except DataError as error:  # for others of the same sheet it is no reason to fail
                return error
            _KEPT.keep(key, found)
        return found

    return list(in_parallel(one, rows))
