"""What is around things in pictures: transparent parts of pictures from outside get it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.data.picture_background import background_of, color_name

NOISE = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)


def with_border(*color: int) -> np.ndarray:
    found = NOISE[:, : len(color)].copy()
    for edge in (found[:, :, :2], found[:, :, -2:], found[..., :2], found[..., -2:]):
        edge[:] = np.reshape(color, (1, -1, 1, 1))
    return found


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("pictures", "background", "name"),
    [
        (with_border(0), (0, 0, 0), "black"),
        (with_border(255), (255, 255, 255), "white"),
        (with_border(120), (120, 120, 120), "gray 120"),
        (with_border(10, 200, 90), (10, 200, 90), "the color rgb(10, 200, 90)"),
        (NOISE, (255, 255, 255), "white"),
        (np.zeros((1, 1, 1, 1), np.uint8), (0, 0, 0), "black"),
    ],
    ids=["black", "white", "gray", "colored", "photos have none", "one pixel"],
)
def test_the_background_is_the_color_of_the_borders(
    pictures: np.ndarray, background: tuple[int, int, int], name: str
) -> None:
    assert background_of(pictures) == background
    assert color_name(background) == name
