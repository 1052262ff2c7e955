"""The color that the pictures of a dataset have around what they show."""

from __future__ import annotations

import numpy as np

WHITE = (255, 255, 255)
NEAR = 16
"""How far a border pixel may be from the background, in steps of 256."""
MOST = 0.5
"""Share of the border pixels that must be near it; photos have no background."""


def background_of(pictures: np.ndarray) -> tuple[int, int, int]:
    """The color of most border pixels, or white if they have none in common.

    Args:
        pictures: uint8 `[n, channels, height, width]`.
    """
    edges = (
        pictures[:, :, 0],
        pictures[:, :, -1],
        pictures[:, :, :, 0],
        pictures[:, :, :, -1],
    )
    border = np.concatenate(edges, axis=2).transpose(0, 2, 1).reshape(-1, pictures.shape[1])
    middle = np.median(border, axis=0)
    near = (np.abs(border - middle) <= NEAR).all(axis=1).mean()
    if near < MOST:
        return WHITE
    red, green, blue = (int(value) for value in np.broadcast_to(middle, 3))
    return red, green, blue


def color_name(color: tuple[int, int, int]) -> str:
    """A color in words: black, white, a gray or its three values."""
    if len(set(color)) == 1:
        return {0: "black", 255: "white"}.get(color[0], f"gray {color[0]}")
    return "the color rgb({}, {}, {})".format(*color)
