"""Changes of pictures that test a hypothesis: pure functions of 8-bit pictures and an intensity.

    changed = apply("patch", pictures, 1.0, {"row": 0, "column": 0, "size": 0.2})

Every transformation takes pictures `[n, channels, height, width]` uint8 and an intensity from 0
(no change) to 1, and returns new pictures of the same shape. Positions and sizes are shares of the
side. Noise is seeded, so the same pictures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from engine.applications.modeldiff.requested_change import checked_options
from engine.data.picture_budget import check_budget
from engine.data.pictures import read_picture
from engine.store.errors import DataloupeError

Pictures = np.ndarray
"""uint8 `[n, channels, height, width]`, channels 1 or 3."""
Change = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Transformation:
    """A way to change pictures.

    Attributes:
        title: Display name.
        change: (float32 pictures 0…255, intensity, **options) → the same, before rounding.
        options: Options and their defaults.
        colour: Whether it changes only color pictures.
    """

    title: str
    change: Change
    options: Mapping[str, Any] = field(default_factory=dict)
    colour: bool = False


def apply(
    name: str, pictures: Pictures, intensity: float, options: Mapping[str, Any] | None = None
) -> Pictures:
    """Change pictures by a built-in transformation.

    Raises:
        DataloupeError: No such transformation or option, or an intensity outside 0 to 1.
    """
    if name not in TRANSFORMATIONS:
        known = ", ".join(TRANSFORMATIONS)
        raise DataloupeError(f"There is no transformation {name!r}; choose one of {known}.")
    transformation = TRANSFORMATIONS[name]
    given = checked_options(name, transformation.options, intensity, options)
    if intensity == 0:
        return pictures.copy()
    changed = transformation.change(pictures.astype(np.float32), float(intensity), **given)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def texture_of(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """An untrusted picture as a texture of this shape (channels, height, width), float32 0…255.

    Raises:
        DataError: It is not a picture, or takes too long to read.
    """
    check_budget(content, "Your texture")
    channels, height, width = shape
    picture = read_picture({"bytes": content, "path": None}, "Your texture", max(height, width))
    picture = picture.convert("L" if channels == 1 else "RGB")
    values = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


# --- color and light -----------------------------------------------------------------------------

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _grey(x: np.ndarray) -> np.ndarray:
    if x.shape[1] == 1:
        return x
    grey: np.ndarray = np.tensordot(x, _LUMA, axes=(1, 0))[:, None]
    return grey


def _blend(x: np.ndarray, other: np.ndarray, intensity: float) -> np.ndarray:
    return (1 - intensity) * x + intensity * other


def _greyscale(x: np.ndarray, intensity: float) -> np.ndarray:
    return _blend(x, _grey(x), intensity)


def _tint(x: np.ndarray, intensity: float, colour: tuple[int, int, int]) -> np.ndarray:
    """Toward a color. The lightness of color pictures is kept; gray ones get the tint's."""
    target = _colour(colour, x.shape[1])
    return _blend(x, target * (0.5 + _grey(x) / 255 / 2), intensity)


def _brightness(x: np.ndarray, intensity: float, darker: bool) -> np.ndarray:
    return x + (-1 if darker else 1) * intensity * 128


def _contrast(x: np.ndarray, intensity: float) -> np.ndarray:
    """Toward each picture's own mean: less contrast."""
    return _blend(x, x.mean(axis=(1, 2, 3), keepdims=True), intensity)


def _colour(colour: tuple[int, int, int], channels: int) -> np.ndarray:
    rgb = np.array(colour, np.float32)
    values = rgb if channels == 3 else np.array([rgb @ _LUMA], np.float32)
    return values[None, :, None, None]


def _mirror(x: np.ndarray, intensity: float) -> np.ndarray:
    """Toward the picture with left and right swapped."""
    return _blend(x, x[..., ::-1], intensity)


# --- patterns ------------------------------------------------------------------------------------


def _texture(x: np.ndarray, intensity: float, texture: np.ndarray | None) -> np.ndarray:
    """Blend with a given texture; without one, with a weave."""
    if texture is None:
        rows, columns = np.indices(x.shape[2:])
        weave = 127.5 * (1 + np.sin(rows * 2.1) * np.sin(columns * 2.1))
        texture = np.broadcast_to(weave, x.shape[1:]).astype(np.float32)
    return _blend(x, texture[None], intensity)


def _dots(
    x: np.ndarray, intensity: float, spacing: float, colour: tuple[int, int, int]
) -> np.ndarray:
    """Polka dots on a grid."""
    step = max(3, round(spacing * min(x.shape[2:])))
    rows, columns = np.indices(x.shape[2:]) % step - (step - 1) / 2
    inside = rows**2 + columns**2 <= (step / 3.2) ** 2
    return np.where(inside, _blend(x, _colour(colour, x.shape[1]), intensity), x)


def _patch(
    x: np.ndarray,
    intensity: float,
    row: float,
    column: float,
    size: float,
    kind: str,
    colour: tuple[int, int, int],
) -> np.ndarray:
    """A square in one place: of one color, or checkered white and black."""
    rows, columns = _square(x.shape[2:], row, column, size)
    changed, place = x.copy(), x[:, :, rows, columns]
    if kind == "chequered":
        chequers = np.indices(place.shape[2:]).sum(axis=0) % 2 == 0
        target = np.where(chequers, np.float32(255), np.float32(0))[None, None]
    elif kind == "plain":
        target = _colour(colour, x.shape[1])
    else:
        raise DataloupeError(f"A patch is 'chequered' or 'plain', not {kind!r}.")
    changed[:, :, rows, columns] = _blend(place, target, intensity)
    return changed


def _cut_out(x: np.ndarray, intensity: float, row: float, column: float, size: float) -> np.ndarray:
    """A square replaced by the pictures' mean."""
    rows, columns = _square(x.shape[2:], row, column, size)
    changed = x.copy()
    changed[:, :, rows, columns] = _blend(x[:, :, rows, columns], x.mean(), intensity)
    return changed


def _square(shape: tuple[int, ...], row: float, column: float, size: float) -> tuple[slice, slice]:
    """Rows and columns of a square, from the position and the side as shares."""
    side = max(1, round(size * min(shape)))
    top, left = (
        round(share * (length - side)) for share, length in zip((row, column), shape, strict=True)
    )
    return slice(top, top + side), slice(left, left + side)


def _background(x: np.ndarray, intensity: float, colour: tuple[int, int, int]) -> np.ndarray:
    """Fill pixels that are similar to the border's with a color."""
    border = np.concatenate([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], axis=2)
    middle = np.median(border, axis=2)[:, :, None, None]
    behind = np.abs(x - middle).max(axis=1, keepdims=True) < 24
    return np.where(behind, _blend(x, _colour(colour, x.shape[1]), intensity), x)


# --- sharpness -----------------------------------------------------------------------------------


def _blur(x: np.ndarray, intensity: float) -> np.ndarray:
    """Gaussian, with a standard deviation of up to an eighth of the side."""
    from scipy.ndimage import gaussian_filter

    sigma = intensity * min(x.shape[2:]) / 8
    blurred: np.ndarray = gaussian_filter(x, sigma, mode="nearest", truncate=3, axes=(2, 3))
    return blurred


def _low_pass(x: np.ndarray, intensity: float) -> np.ndarray:
    """Keep only low spatial frequencies."""
    return _filtered(x, 0.5 * (1 - intensity) ** 2 + 0.02)


def _high_pass(x: np.ndarray, intensity: float) -> np.ndarray:
    """The picture minus its smooth part, around its mean."""
    mean = x.mean(axis=(2, 3), keepdims=True)
    return np.asarray(x - intensity * (_filtered(x, 0.08) - mean))


def _noise(x: np.ndarray, intensity: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    return np.asarray(x + intensity * 96 * noise)


def _filtered(x: np.ndarray, cut: float) -> np.ndarray:
    """Keep frequencies of at most `cut` periods per pixel, by the Fourier transform."""
    rows = np.fft.fftfreq(x.shape[2])[:, None]
    columns = np.fft.rfftfreq(x.shape[3])[None]
    kept = np.sqrt(rows**2 + columns**2) <= cut
    waves = np.fft.rfft2(x) * kept
    return np.asarray(np.fft.irfft2(waves, s=x.shape[2:]), np.float32)


_WHITE, _YELLOW = (255, 255, 255), (255, 220, 0)
_CORNER = {"row": 0.0, "column": 0.0, "size": 0.18}

TRANSFORMATIONS: dict[str, Transformation] = {
    "grey": Transformation("Grayscale", _greyscale, colour=True),
    "tint": Transformation("Tint", _tint, {"colour": _YELLOW}),
    "texture": Transformation("Texture", _texture, {"texture": None}),
    "dots": Transformation("Polka dots", _dots, {"spacing": 0.25, "colour": _WHITE}),
    "patch": Transformation("Patch", _patch, {**_CORNER, "kind": "chequered", "colour": _YELLOW}),
    "cut-out": Transformation("Cut-out", _cut_out, {"row": 0.5, "column": 0.5, "size": 0.4}),
    "background": Transformation("Background fill", _background, {"colour": _WHITE}),
    "blur": Transformation("Blur", _blur),
    "noise": Transformation("Noise", _noise, {"seed": 0}),
    "brightness": Transformation("Brightness", _brightness, {"darker": False}),
    "contrast": Transformation("Less contrast", _contrast),
    "mirror": Transformation("Mirror", _mirror),
    "high-pass": Transformation("High-pass", _high_pass),
    "low-pass": Transformation("Low-pass", _low_pass),
}
"""Name → transformation: all those that `try_all` tries."""


def applicable(channels: int) -> list[str]:
    """Names of the transformations that change pictures with this number of channels."""
    return [n for n, one in TRANSFORMATIONS.items() if channels == 3 or not one.colour]
