"""Sprite sheets: 64 thumbnails in one lossless picture, and where each lies.

A browser fetches one sheet instead of 64 files and cuts it up itself. Stored sheets hold
neighbouring rows; a sheet of any rows, as the training pictures that matter to a prediction, is
gathered from them when it is asked for. Thumbnails keep every pixel of small pictures; a thumbnail
that does not fill its square cell lies in its middle, and the rest of the cell is transparent, so
the sheet alone says how large each thumbnail is.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from engine.store.errors import DataError

COLUMNS = 8
SPRITES_PER_SHEET = COLUMNS * COLUMNS
SUFFIX = ".webp"
MAX_SIDE = 96
"""Longest side of a thumbnail, in pixels; smaller pictures are kept as they are."""


def thumbnail(picture: Image.Image, cell: int) -> Image.Image:
    """Return the picture itself if it fits a cell, else shrunk to it with its proportions kept."""
    if max(picture.size) <= cell:
        return picture
    small = picture.copy()
    small.thumbnail((cell, cell))
    return small


def thumbnail_box(position: int, cell: int) -> tuple[int, int, int, int]:
    """Where cell `position` (row by row) of a sheet lies: (left, top, right, bottom), pixels."""
    row, column = divmod(position, COLUMNS)
    return column * cell, row * cell, (column + 1) * cell, (row + 1) * cell


def sprite_sheet(thumbnails: Sequence[Image.Image], cell: int) -> bytes:
    """Lay up to 64 thumbnails out row by row; return the sheet as lossless WebP.

    The same thumbnails give the same bytes. A last, unfilled sheet ends with its last row. (WebP at
    its fastest: on photos of 96 pixels a quarter smaller than PNG, made eight times as fast.)

    Raises:
        DataError: Too many thumbnails, or one larger than the cell.
    """
    if not 0 < len(thumbnails) <= SPRITES_PER_SHEET:
        raise DataError(
            f"A sprite sheet holds 1 to {SPRITES_PER_SHEET} thumbnails, not {len(thumbnails)}."
        )
    rows = -(-len(thumbnails) // COLUMNS)
    filled = all(picture.size == (cell, cell) for picture in thumbnails)
    mode = "RGB" if filled and not len(thumbnails) % COLUMNS else "RGBA"
    sheet = Image.new(mode, (COLUMNS * cell, rows * cell))
    for position, picture in enumerate(thumbnails):
        if max(picture.size) > cell:
            raise DataError(f"A thumbnail of {picture.size} pixels does not fit a cell of {cell}.")
        left, top, _, _ = thumbnail_box(position, cell)
        left += (cell - picture.width) // 2
        top += (cell - picture.height) // 2
        sheet.paste(picture.convert(mode), (left, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()


def crop(sheet: Image.Image, position: int, cell: int) -> Image.Image:
    """Cut a thumbnail out of its sheet, without the transparent rest of its cell; mode `RGB`."""
    box = thumbnail_box(position, cell)
    if box[3] > sheet.height:
        raise DataError(f"Cell {position} is below the sprite sheet's end.")
    picture = sheet.crop(box)
    if picture.mode == "RGB":
        return picture
    filled = picture.getchannel("A").getbbox()
    if filled is None:
        raise DataError(f"Cell {position} of the sprite sheet is empty.")
    return picture.crop(filled).convert("RGB")


def gathered_sheet(sheet_file: Callable[[int], Path], rows: Sequence[int], cell: int) -> bytes:
    """A sheet of any rows, in their order, cut from stored ones; each is read once.

    Args:
        sheet_file: Where the stored sheet of that number is.
        rows: 1 to 64 of them.

    Raises:
        DataError: Too many rows, or one that no sheet holds.
        OSError: A sheet is missing or damaged.
    """
    places = defaultdict(list)
    for place, row in enumerate(rows):
        places[row // SPRITES_PER_SHEET].append((place, row % SPRITES_PER_SHEET))
    found: dict[int, Image.Image] = {}
    for number, wanted in places.items():
        with Image.open(sheet_file(number)) as sheet:
            found |= {place: crop(sheet, position, cell) for place, position in wanted}
    return sprite_sheet([found[place] for place in range(len(rows))], cell)
