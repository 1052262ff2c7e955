"""Transformations: pure, within bounds, nothing at intensity 0; each does what its name says."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.applications.modeldiff.transformations import (
    TRANSFORMATIONS,
    applicable,
    apply,
    texture_of,
)
from engine.store.errors import DataError, DataloupeError


def pictures(channels: int = 3, n: int = 4, height: int = 20, width: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.integers(40, 216, (n, channels, height // 4, width // 4))
    return smooth.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(TRANSFORMATIONS)),
    intensity=st.floats(0, 1),
    channels=st.sampled_from([1, 3]),
    side=st.integers(3, 17),
)
def test_every_one_is_pure_and_repeats(
    name: str, intensity: float, channels: int, side: int
) -> None:
    x = np.random.default_rng(side).integers(0, 256, (2, channels, side, side + 2), dtype=np.uint8)
    before = x.copy()
    changed = apply(name, x, intensity)
    np.testing.assert_array_equal(x, before)
    assert changed.shape == x.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, apply(name, x, intensity))


@pytest.mark.parametrize("name", sorted(TRANSFORMATIONS))
def test_more_intensity_is_more_change(name: str) -> None:
    x = pictures()
    np.testing.assert_array_equal(apply(name, x, 0), x)
    sizes = [np.abs(apply(name, x, i).astype(int) - x).mean() for i in (0.25, 0.5, 1.0)]
    assert 0 < sizes[0] < sizes[1] < sizes[2], sizes


def test_each_does_what_its_name_says() -> None:
    x = pictures()
    grey = apply("grey", x, 1)
    assert (grey == grey[:, :1]).all()
    patch = apply("patch", x, 1, {"row": 1.0, "column": 1.0, "size": 0.25})
    assert (patch[:, :, -5:, -5:] % 255 == 0).all()
    np.testing.assert_array_equal(patch[:, :, :-5], x[:, :, :-5])
    np.testing.assert_array_equal(patch[:, :, :, :-5], x[:, :, :, :-5])
    plain = apply("patch", x, 1, {"kind": "plain", "colour": (1, 2, 3), "size": 0.2})
    assert (plain[:, :, :4, :4] == np.array([1, 2, 3])[None, :, None, None]).all()
    assert np.ptp(apply("cut-out", x, 1)[0, :, 8:12, 9:14]) <= 1
    assert apply("brightness", x, 0.5).mean() > x.mean()
    assert apply("brightness", x, 0.5, {"darker": True}).mean() < x.mean()
    assert apply("contrast", x, 1)[0].std() < 1
    np.testing.assert_array_equal(apply("mirror", x, 1), x[..., ::-1])
    tint = apply("tint", x, 1, {"colour": (255, 0, 0)})
    assert tint[:, 0].mean() > 5 * tint[:, 1].mean()

    def roughness(y: np.ndarray) -> float:
        return float(np.abs(np.diff(y.astype(int), axis=3)).mean())

    assert roughness(apply("blur", x, 1)) < roughness(x) / 2
    assert roughness(apply("low-pass", x, 0.9)) < roughness(x)
    assert roughness(apply("noise", x, 0.5)) > roughness(x)
    high = apply("high-pass", x, 1).astype(float)
    assert high.reshape(4, 3, 4, 5, 4, 6).mean((3, 5)).std() < 0.8 * x.astype(float).std()


def test_the_background_is_what_is_like_the_border() -> None:
    x = np.zeros((1, 1, 12, 12), np.uint8)
    x[0, 0, 4:8, 4:8] = 200
    filled = apply("background", x, 1)
    assert (filled[0, 0, 4:8, 4:8] == 200).all()
    assert (np.delete(filled[0, 0].ravel(), np.flatnonzero(x[0, 0].ravel())) == 255).all()


def test_a_texture_of_one_s_own() -> None:
    picture = Image.new("RGB", (300, 200), (10, 20, 30))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    texture = texture_of(buffer.getvalue(), (3, 20, 24))
    assert texture.shape == (3, 20, 24)
    changed = apply("texture", pictures(), 1, {"texture": texture})
    assert (changed == np.array([10, 20, 30])[None, :, None, None]).all()
    assert texture_of(buffer.getvalue(), (1, 8, 8)).shape == (1, 8, 8)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_texture_that_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="Your texture"):
        texture_of(content, (3, 8, 8))


@pytest.mark.parametrize(
    ("name", "intensity", "options", "says"),
    [
        ("melt", 1, {}, "no transformation 'melt'"),
        ("blur", 2, {}, "from 0 to 1"),
        ("blur", float("nan"), {}, "from 0 to 1"),
        ("blur", 1, {"radius": 3}, "no option 'radius'"),
        ("patch", 1, {"kind": "star"}, "not 'star'"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, intensity: float, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataloupeError, match=says):
        apply(name, pictures(), intensity, options)


def test_grey_pictures_have_no_grey_scale() -> None:
    assert "grey" not in applicable(1)
    assert set(applicable(3)) == set(TRANSFORMATIONS)
