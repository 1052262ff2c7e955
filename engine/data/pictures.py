"""A picture's bytes → 8-bit grayscale or RGB, without trusting the file.

Pillow opens only the formats listed here (its PostScript reader would start Ghostscript). A header
with too many pixels is refused before anything is decoded. Whatever a decoder raises for a damaged
file becomes one line that names the example.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from engine.data.bit_depth import (
    DeepValues,
    UnusableValues,
    is_deep,
    is_deep_gray,
    read_deep,
    to_eight_bits,
)
from engine.data.picture_background import WHITE
from engine.data.picture_budget import FORMATS
from engine.data.places.place import SEPARATOR, place_of, read_bytes
from engine.store.errors import DataError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 64_000_000
"""Larger pictures are refused: decoding one would take 200 MB or more."""

_GRAYSCALE = {"1", "L", "LA", "La"}
_WIDTH, _LENGTH, _ORIENTATION = 0x0100, 0x0101, 0x0112


def read_picture(
    content: Any,
    where: str,
    at_least: int | None = None,
    between: tuple[float, float] | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Image.Image:
    """Decode a picture to mode `L` (grayscale) or `RGB`, upright.

    Transparent parts become the background; palettes, CMYK and others become RGB; only the
    first frame of an animation is used; an EXIF orientation is applied.

    Args:
        content: A value of an undecoded Hugging Face image column: `{"bytes", "path"}`.
        where: Names the example in errors.
        at_least: Length of the sides that is enough, in pixels. A larger JPEG is reduced by 2, 4 or
            8 while it is decoded, which is several times as fast for photos of a phone. None
            decodes in full.
        between: The values that become black and white in a picture of more than 8 bits a value;
            None keeps the upper 8 of 16 bits, and refuses pictures that do not use those.
        background: What is behind transparent parts.

    Raises:
        DataError: The picture is missing, damaged or too large, or the file is not a picture.
    """
    picture = _open(content, where)
    with _one_line(content, where):
        if is_deep(picture):
            return to_eight_bits(_deep(content, where), between)
        if at_least is not None:
            picture.draft(None, (at_least, at_least))
        return _eight_bits(_upright(picture), background)


def read_values(content: Any, where: str) -> DeepValues:
    """Decode a picture whose header says `deep`. Raises DataError like `read_picture`."""
    with _one_line(content, where):
        return _deep(content, where)


def has_many_bits(content: Any, where: str) -> bool:
    """Whether a picture has more than 8 bits a value; nothing is decoded, whatever its format.

    Raises DataError like `read_picture`.
    """
    return is_deep(_open(content, where))


@dataclass(frozen=True)
class Header:
    """What a picture's header tells.

    Attributes:
        size: (width, height) as `read_picture` would give it.
        grayscale: Whether it has no color.
        deep: Whether it has more than 8 bits a value.
    """

    size: tuple[int, int]
    grayscale: bool
    deep: bool


def read_header(content: Any, where: str) -> Header:
    """Read a picture's header without decoding it, where its format allows.

    Raises DataError like `read_picture`.
    """
    with _one_line(content, where):
        return _header(_open(content, where))


def _header(picture: Image.Image) -> Header:
    deep = is_deep(picture)  # before getexif, which decodes a PNG
    grayscale = is_deep_gray(picture) if deep else picture.mode in _GRAYSCALE
    orientation = picture.getexif().get(_ORIENTATION, 1)
    # Newer Pillow already swaps the sides of a TIFF, and not if the orientation is in its XMP.
    tags = getattr(picture, "tag_v2", None)
    width, height = picture.size if tags is None else (tags[_WIDTH], tags[_LENGTH])
    if orientation in (5, 6, 7, 8):  # rotated by 90°
        width, height = height, width
    return Header((width, height), grayscale, deep)


@dataclass(frozen=True)
class Looks:
    """What can be told of a picture without decoding it.

    Attributes:
        header: What its header tells.
        mode: Pillow's name for the kind of pixels.
        animated: Whether it has more than one frame.
        turned: Whether its EXIF orientation rotates or mirrors it.
        transparent: Whether it may have transparent parts.
    """

    header: Header
    mode: str
    animated: bool
    turned: bool
    transparent: bool


def examine(content: Any, where: str) -> Looks:
    """Look at a picture from outside. Raises DataError like `read_picture`."""
    with _one_line(content, where):
        picture = _open(content, where)
        return Looks(
            header=_header(picture),
            mode=picture.mode,
            animated=bool(getattr(picture, "is_animated", False)),
            turned=picture.getexif().get(_ORIENTATION, 1) not in (0, 1),
            transparent=picture.has_transparency_data,
        )


@contextmanager
def _one_line(content: Any, where: str) -> Iterator[None]:
    """Make one DataError of what a decoder raises."""
    try:
        yield
    except DataError:
        raise
    except UnusableValues as error:
        raise DataError(f"{where}: {_named(content)} {error}.") from error
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        raise DataError(f"{where}: {_named(content)} is damaged ({error}).") from error


def _deep(content: Any, where: str) -> DeepValues:
    return read_deep(lambda: _open(content, where), _upright)


def _upright(picture: Image.Image) -> Image.Image:
    """Decode a picture, and turn it as its EXIF orientation says."""
    ImageOps.exif_transpose(picture, in_place=True)  # else a copy even where nothing is turned
    return picture


def _open(content: Any, where: str) -> Image.Image:
    if not isinstance(content, Mapping) or not {"bytes", "path"} & set(content):
        found = "nothing" if content is None else type(content).__name__
        raise DataError(
            f"{where}: a picture was expected and {found} was found. "
            "Name the column of pictures as `input` under [data]."
        )
    try:
        if not content.get("bytes") and content["path"] is None:
            raise DataError(
                f"{where}: the picture is missing (the row holds neither bytes nor a path)."
            )
        picture = Image.open(_source(content), formats=FORMATS)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{where}: {_named(content)} does not exist.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(content, where, "far") from error
    except Exception as error:  # as in read_picture
        raise DataError(
            f"{where}: {_named(content)} is damaged or no picture of a known format "
            f"({', '.join(FORMATS)})."
        ) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _too_large(content, where, f"{width} × {height},")
    return picture


def _source(content: Mapping[str, Any]) -> io.BytesIO | str:
    """What Pillow opens: the row's bytes, those at a place inside a file, or a file."""
    if content.get("bytes"):
        return io.BytesIO(content["bytes"])
    path = str(content["path"])
    return io.BytesIO(read_bytes(path)) if SEPARATOR in path else path


def _too_large(content: Mapping[str, Any], where: str, size: str) -> DataError:
    return DataError(
        f"{where}: {_named(content)} has {size} more pixels than the {MAX_PIXELS:,} that are "
        "taken. Shrink it."
    )


def _named(content: Mapping[str, Any]) -> str:
    return f"the picture {place_of(content['path'])}" if content.get("path") else "the picture"


def _eight_bits(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    grayscale = picture.mode in _GRAYSCALE
    if picture.has_transparency_data:
        behind = Image.new("RGBA", picture.size, (*background, 255))
        picture = Image.alpha_composite(behind, picture.convert("RGBA"))
    mode = "L" if grayscale else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)
