"""A picture file → the pixels that models read, and its thumbnail.

One way for pictures that a study copies, for those that it keeps by reference, and for those of
strangers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from engine.data.picture_background import WHITE
from engine.data.pictures import read_picture
from engine.data.thumbnails import thumbnail
from engine.store.errors import DataError

BLACK = (0, 0, 0)
DECODERS = "DATALOUPE_DECODERS"
"""Environment variable: how many threads of a process decode pictures."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fit:
    """How pictures become arrays of one shape.

    Attributes:
        shape: Channels, height, width.
        cell: Longest side of a thumbnail in pixels.
        sized: Whether the study names a size; else a picture of another size is refused.
        resize: `squash`, `crop` or `pad`, as `Options` of image classification.
        color: `keep`, `grey` or `rgb`, as there.
        between: The values that become black and white in pictures of more than 8 bits a value.
        background: What is behind transparent parts.
    """

    shape: tuple[int, int, int]
    cell: int
    sized: bool
    resize: str
    color: str
    between: tuple[float, float] | None = None
    background: tuple[int, int, int] = WHITE

    @property
    def enough(self) -> int | None:
        """Length of the sides that the decoder must give: twice what is needed, so that its coarser
        resizing does not show."""
        return 2 * max(*self.shape[1:], self.cell) if self.sized else None


def decode(content: Any, where: str, fit: Fit) -> Image.Image:
    """A picture in the study's colors, at its own size or, if it is far larger, a reduced one.

    Raises:
        DataError: It is missing, damaged or too large, or in color where all others are not.
    """
    picture = read_picture(content, where, fit.enough, fit.between, fit.background)
    if fit.shape[0] == 3:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.mode != "L" and fit.color == "keep":
        raise DataError(
            f"{where}: the picture is in color, and all training pictures are grayscale. "
            'Set color = "rgb" or "grey" under [task].'
        )
    return picture.convert("L")


def pixels_of(
    picture: Image.Image, where: str, fit: Fit, border: tuple[int, int, int] = BLACK
) -> np.ndarray:
    """What models read of a decoded picture: uint8 `[channels, height, width]`.

    Raises:
        DataError: It has another size than the study's pictures, and no size is set.
    """
    values = np.asarray(_in_size(picture, where, fit, border))
    return values[None] if fit.shape[0] == 1 else values.transpose(2, 0, 1)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """A picture of what models read, `[channels, height, width]`: the reverse of `pixels_of`."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def pixels_and_thumbnail(
    content: Any, where: str, fit: Fit, border: tuple[int, int, int] = BLACK
) -> tuple[np.ndarray, Image.Image]:
    """Both, from one decoding. Raises as `decode` and `pixels_of`."""
    picture = decode(content, where, fit)
    return pixels_of(picture, where, fit, border), thumbnail(picture, fit.cell)


def _in_size(
    picture: Image.Image, where: str, fit: Fit, border: tuple[int, int, int]
) -> Image.Image:
    _, height, width = fit.shape
    size = width, height
    if picture.size == size:
        return picture
    if not fit.sized:
        raise DataError(
            f"{where}: the picture has {picture.width} × {picture.height} pixels, and all training "
            f"pictures have {size[0]} × {size[1]}. Set image_size under [task]."
        )
    if fit.resize == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
    if fit.resize == "pad":
        color = border if picture.mode == "RGB" else round(sum(border) / 3)
        return ImageOps.pad(picture, size, Image.Resampling.BICUBIC, color=color)
    return picture.resize(size, Image.Resampling.BICUBIC)


# --- a fit that a study keeps ---------------------------------------------------------------------

REFERENCE = "reference"
"""Key of the encoding of a study that keeps its pictures by reference."""


def as_encoding(fit: Fit) -> dict[str, Any]:
    """What an encoding must hold beside `shape`, `cell` and `values` for `fit_of`."""
    return {REFERENCE: {"sized": fit.sized, "resize": fit.resize, "color": fit.color}}


def is_by_reference(encoding: Mapping[str, Any]) -> bool:
    """Whether a study keeps where its pictures lie, and not their pixels."""
    return REFERENCE in encoding


def fit_of(encoding: Mapping[str, Any]) -> Fit:
    """How the pictures of a study are decoded that keeps them by reference."""
    kept, values = encoding[REFERENCE], encoding.get("values")
    channels, height, width = encoding["shape"]
    between = None if values is None else (values["low"], values["high"])
    return Fit((channels, height, width), encoding["cell"], **kept, between=between)


# --- several at a time ----------------------------------------------------------------------------


def decoders() -> int:
    """Number of threads that decode: as many as this process has cores, or as it was told."""
    told = os.environ.get(DECODERS) or os.environ.get("OMP_NUM_THREADS")
    if told:
        return max(1, int(told))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


@cache
def pool() -> ThreadPoolExecutor:
    """The threads that decode. Pillow decodes and resizes without Python's lock."""
    return ThreadPoolExecutor(decoders(), thread_name_prefix="decode")


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
    """Results in order; the first error in order is raised."""
    return map(function, items) if len(items) < 2 else pool().map(function, items)
