"""Pictures with more than 8 bits a value, and their way to 8.

A file of 16 bits often holds values of 8, 10 or 12, and nothing in it tells how many. So the scale
is measured: over a training split, `ValueRange` is its smallest and its largest value. Pillow
itself keeps only the upper 8 bits of colors; here a second decoding reads the lower ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

_FULL = 0xFFFF
_LEAST_OF_16_BITS = 0x1000
"""Values of 16 bits go beyond this somewhere; those of 12 bits do not."""
_PIXELS_FOR_OUTLIERS = 4096
_BITS, _INTERPRETATION, _PLANES = 258, 262, 284
"""Tags of TIFF."""
_WHITE_IS_ZERO, _SEPARATE = 0, 2
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Layouts of compressed TIFFs, whose library has swapped the bytes before Pillow swaps them."""
_AT_ONCE = 1 << 20
"""Values scaled at once, so that memory holds one picture and not several."""


class UnusableValues(ValueError):
    """The values cannot be read or scaled; the message goes on after `the picture`."""


@dataclass(frozen=True)
class DeepValues:
    """The values of a picture, upright.

    Attributes:
        values: `[height, width]` if it is grayscale, else `[height, width, 3]`.
        alpha: `[height, width]` from 0, transparent, to `opaque`; None if nothing is transparent.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    opaque: int = 1


@dataclass(frozen=True)
class ValueRange:
    """The values that become black and white.

    Attributes:
        low, high: Smallest and largest value; smaller and larger ones become black and white, too.
        pictures: Number of pictures it was measured on.
        middle_low, middle_high: All but a hundredth of each picture's values on either side lie
            between them.
    """

    low: float
    high: float
    pictures: int
    middle_low: float
    middle_high: float

    @property
    def flat(self) -> bool:
        """Whether a few outliers leave the other values only a few of the 256 grays."""
        return self.middle_high - self.middle_low < (self.high - self.low) / 16


def is_deep(picture: Image.Image) -> bool:
    """Whether an opened picture has more than 8 bits a value (16-bit CMYK does not count)."""
    if picture.mode in ("RGB", "RGBA"):
        return ";16" in _raw_mode(picture) or max(_tag(picture, _BITS, (8,))) > 8
    return _is_gray(picture)


def is_deep_gray(picture: Image.Image) -> bool:
    """Whether a deep picture has no color."""
    return _is_gray(picture) or _raw_mode(picture).startswith("LA")


def _is_gray(picture: Image.Image) -> bool:
    return picture.mode.startswith(("I", "F"))


def read_deep(
    opened: Callable[[], Image.Image], upright: Callable[[Image.Image], Image.Image]
) -> DeepValues:
    """Decode a picture for which `is_deep` holds.

    Args:
        opened: Opens it anew, without decoding it.
        upright: Decodes a picture and applies its orientation.

    Raises:
        UnusableValues: It holds NaN or infinity, or its lower bits cannot be read.
    """
    picture = opened()
    raw = _raw_mode(picture)
    alpha = None
    if _is_gray(picture):
        compressed = picture.tile[0][0] == "libtiff"  # type: ignore[attr-defined]
        inverted = _tag(picture, _INTERPRETATION, 1) == _WHITE_IS_ZERO
        native = _with_raw_mode(picture, _NATIVE.get(raw, raw)) if compressed else picture
        values = np.asarray(upright(native))
        if inverted:
            values = _FULL - values if values.dtype == np.uint16 else -values
    elif raw.startswith("LA"):  # the bytes of gray and alpha, as if they were four colors
        channels = np.asarray(upright(_with_raw_mode(picture, "RGBA"))).astype(np.uint16)
        values, alpha = (channels[..., i] << 8 | channels[..., i + 1] for i in (0, 2))
    else:
        if raw.startswith("RGBa") or _tag(picture, _PLANES, 1) == _SEPARATE:
            raise UnusableValues("stores 16-bit colors in a rare way: save it as a 16-bit PNG")
        values = np.asarray(upright(picture)).astype(np.uint16) << 8
        values |= np.asarray(upright(_with_raw_mode(opened(), _other_byte(raw))))
        if values.shape[2] == 4:
            values, alpha = values[..., :3], values[..., 3]
    if not np.isfinite(values).all():
        raise UnusableValues("holds NaN or infinity")
    if alpha is not None:
        most = int(alpha.max())
        return DeepValues(values, alpha, _FULL if most >= _LEAST_OF_16_BITS else max(most, 1))
    clear = picture.info.get("transparency")
    if isinstance(clear, int | tuple):  # one gray or color of a PNG is transparent
        same = values == np.array(clear)
        return DeepValues(values, ~(same.all(axis=2) if same.ndim == 3 else same))
    return DeepValues(values)


def measure(pictures: Iterable[DeepValues]) -> ValueRange | None:
    """The range of the values of these pictures; None without a picture."""
    parts = []
    for picture in pictures:
        flat = picture.values.reshape(-1)
        some = flat[:: max(1, len(flat) // _PIXELS_FOR_OUTLIERS)]
        parts.append((flat.min(), flat.max(), *np.quantile(some, (0.01, 0.99))))
    if not parts:
        return None
    lows, highs, middle_lows, middle_highs = zip(*parts, strict=True)
    low, high = float(min(lows)), float(max(highs))
    if low == high:  # pictures of a single gray become black
        high = low + 1
    return ValueRange(low, high, len(parts), float(min(middle_lows)), float(max(middle_highs)))


def share_beyond(picture: DeepValues, low: float, high: float) -> float:
    """Share of a picture's values outside a range."""
    return float(((picture.values < low) | (picture.values > high)).mean())


def to_eight_bits(picture: DeepValues, between: tuple[float, float] | None) -> Image.Image:
    """The picture in mode `L` or `RGB`, on white where it is transparent.

    Args:
        between: The values that become black and white; None if nothing tells them.

    Raises:
        UnusableValues: `between` is None, and the values do not show that they have 16 bits.
    """
    if between is None:
        _check_sixteen_bits(picture.values)
    found = np.empty(picture.values.shape, np.uint8)
    rows = max(1, _AT_ONCE // max(1, picture.values[0].size))
    for first in range(0, len(found), rows):
        part = slice(first, first + rows)
        found[part] = _scaled(picture, part, between)
    return Image.fromarray(found)


def _scaled(picture: DeepValues, part: slice, between: tuple[float, float] | None) -> np.ndarray:
    values = picture.values[part]
    if between is None:
        scaled = (values.astype(np.int32) >> 8).astype(np.float64)
    else:
        low, high = between
        scaled = np.clip((values.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    if picture.alpha is not None:
        alpha = picture.alpha[part] / picture.opaque
        alpha = alpha if scaled.ndim == 2 else alpha[..., None]
        scaled = scaled * alpha + 255 * (1 - alpha)
    rounded: np.ndarray = np.rint(scaled).astype(np.uint8)
    return rounded


def _check_sixteen_bits(values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" or low < 0 or high > _FULL or 0 < high < _LEAST_OF_16_BITS:
        raise UnusableValues(
            f"holds values from {_shown(low)} to {_shown(high)}, and no training picture tells "
            "their scale: save it with 8 bits a value, or set value_range under [task]"
        )


def _raw_mode(picture: Image.Image) -> str:
    """How the bytes of the file are laid out, in Pillow's words; empty where it does not say."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _with_raw_mode(picture: Any, raw: str) -> Image.Image:
    """The opened picture, to be decoded as if its bytes were laid out otherwise."""
    picture.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in picture.tile
    ]
    changed: Image.Image = picture
    return changed


def _other_byte(raw: str) -> str:
    """The layout with the bytes of each value swapped; N is the order of this machine."""
    order = raw[-1]
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    return raw[:-1] + ("B" if order == "L" else "L")


def _tag(picture: Image.Image, number: int, otherwise: Any) -> Any:
    """The value of a tag of a TIFF."""
    return getattr(picture, "tag_v2", {}).get(number, otherwise)


def _shown(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")
