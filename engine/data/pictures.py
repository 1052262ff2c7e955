"""A picture's bytes → 8-bit grayscale or RGB, without trusting the file.

Pillow opens only the formats listed here (its PostScript reader would start Ghostscript). A header
with too many pixels is refused before anything is decoded. Whatever a decoder raises for a damaged
file becomes one line that names the example.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from engine.store.errors import DataError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 64_000_000
"""Larger pictures are refused: decoding one would take 200 MB or more."""

_GRAYSCALE = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION = 0x0112


def read_picture(content: Any, where: str, at_least: int | None = None) -> Image.Image:
    """Decode a picture to mode `L` (grayscale) or `RGB`, upright.

    Transparent parts become white; 16-bit grayscale keeps its upper 8 bits; palettes, CMYK and
    others become RGB; only the first frame of an animation is used; an EXIF orientation is applied.

    Args:
        content: A value of an undecoded Hugging Face image column: `{"bytes", "path"}`.
        where: Names the example in errors.
        at_least: Length of the sides that is enough, in pixels. A larger JPEG is reduced by 2, 4 or
            8 while it is decoded, which is several times as fast for photos of a phone. None
            decodes in full.

    Raises:
        DataError: The picture is missing, damaged or too large, or the file is not a picture.
    """
    picture = _open(content, where)
    try:
        if at_least is not None:
            picture.draft(None, (at_least, at_least))
        upright = ImageOps.exif_transpose(picture)
        return _eight_bits(upright if upright is not None else picture)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        raise DataError(f"{where}: {_named(content)} is damaged ({error}).") from error


def read_header(content: Any, where: str) -> tuple[tuple[int, int], bool]:
    """Read ((width, height), whether it is grayscale) as `read_picture` would decode it.

    Only the header is read, which is about ten times as fast. Raises DataError like `read_picture`.
    """
    picture = _open(content, where)
    width, height = picture.size
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # as in read_picture
        raise DataError(f"{where}: {_named(content)} is damaged ({error}).") from error
    if orientation in (5, 6, 7, 8):  # rotated by 90°
        width, height = height, width
    return (width, height), picture.mode in _GRAYSCALE


@dataclass(frozen=True)
class Looks:
    """What a picture's header tells.

    Attributes:
        size: (width, height) as `read_picture` would give it.
        grayscale: Whether it has no color.
        mode: Pillow's name for the kind of pixels.
        animated: Whether it has more than one frame.
        turned: Whether its EXIF orientation rotates or mirrors it.
        sixteen_bits: Whether its gray values have more than 8 bits.
        transparent: Whether it may have transparent parts.
    """

    size: tuple[int, int]
    grayscale: bool
    mode: str
    animated: bool
    turned: bool
    sixteen_bits: bool
    transparent: bool


def examine(content: Any, where: str) -> Looks:
    """Read a picture's header without decoding it. Raises DataError like `read_picture`."""
    size, grayscale = read_header(content, where)
    picture = _open(content, where)
    try:
        return Looks(
            size=size,
            grayscale=grayscale,
            mode=picture.mode,
            animated=bool(getattr(picture, "is_animated", False)),
            turned=picture.getexif().get(_ORIENTATION, 1) not in (0, 1),
            sixteen_bits=picture.mode.startswith("I"),
            transparent=picture.has_transparency_data,
        )
    except Exception as error:  # as in read_picture
        raise DataError(f"{where}: {_named(content)} is damaged ({error}).") from error


def _open(content: Any, where: str) -> Image.Image:
    if not isinstance(content, Mapping) or not {"bytes", "path"} & set(content):
        found = "nothing" if content is None else type(content).__name__
        raise DataError(
            f"{where}: a picture was expected and {found} was found. "
            "Name the column of pictures as `input` under [data]."
        )
    try:
        source = io.BytesIO(content["bytes"]) if content.get("bytes") else content["path"]
        if source is None:
            raise DataError(
                f"{where}: the picture is missing (the row holds neither bytes nor a path)."
            )
        picture = Image.open(source, formats=FORMATS)
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


def _too_large(content: Mapping[str, Any], where: str, size: str) -> DataError:
    return DataError(
        f"{where}: {_named(content)} has {size} more pixels than the {MAX_PIXELS:,} that are "
        "taken. Shrink it."
    )


def _named(content: Mapping[str, Any]) -> str:
    return f"the picture {content['path']}" if content.get("path") else "the picture"


def _eight_bits(picture: Image.Image) -> Image.Image:
    grayscale = picture.mode in _GRAYSCALE
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its values do not fit 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("it holds floating-point values; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("L" if grayscale else "RGB")
