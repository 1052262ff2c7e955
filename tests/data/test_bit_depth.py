"""Pictures with more than 8 bits a value: every value is read, and one measured scale is kept."""

from __future__ import annotations

import re
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from engine.build.encoding import encode_split
from engine.data.pictures import read_header, read_picture, read_values
from engine.store.errors import DataError, SpecError
from engine.tasks import load_task
from engine.tasks.image_classification import Options, accept, encode, plan_encoding, remarks
from tests.builders.picture_files import DEFLATE, png16, tiff
from tests.data.test_data_pictures import noise, saved


def values(top: int, *shape: int, dtype: str = "u2", seed: int = 0) -> np.ndarray:
    """Random values from 0 to `top`, both included."""
    found = np.random.default_rng(seed).integers(0, top + 1, shape).astype(dtype)
    found.reshape(-1)[:2] = 0, top
    return found


GRAY, RGB, RGBA = values(999, 5, 4), values(999, 5, 4, 3), values(999, 5, 4, 4)
SIGNED = (values(999, 5, 4).astype("i4") - 300).astype("i2")
CASES = {
    "png gray": (png16(GRAY), GRAY),
    "png gray with alpha": (png16(RGBA[..., :2]), RGBA[..., 0]),
    "png rgb": (png16(RGB), RGB),
    "png rgba": (png16(RGBA), RGBA[..., :3]),
    "pgm": (saved(Image.fromarray(GRAY.astype("i4")), "PPM"), GRAY),
    "pillow tiff I;16": (saved(Image.fromarray(GRAY), "TIFF"), GRAY),
    "pillow tiff I": (saved(Image.fromarray(GRAY.astype("i4") << 12), "TIFF"), GRAY << 12),
    "pillow tiff F": (saved(Image.fromarray(GRAY.astype("f4") / 7), "TIFF"), GRAY / 7),
} | {
    f"tiff {name} {order} {compression}": (tiff(given, order, compression, **tags), expected)
    for order in "<>"
    for compression in (1, DEFLATE)
    for name, given, tags, expected in (
        ("gray", GRAY, {}, GRAY),
        ("signed", SIGNED, {}, SIGNED),
        ("float", GRAY.astype("f4"), {}, GRAY),
        ("rgb", RGB, {}, RGB),
        ("rgb turned", RGB, {"orientation": 6}, np.rot90(RGB, -1)),
        ("rgba", RGBA, {"extra": 2}, RGBA[..., :3]),
        ("rgbx", RGBA, {"extra": 0}, RGBA[..., :3]),
    )
}
CASES["tiff white is zero"] = (tiff(GRAY, interpretation=0), 65535 - GRAY)


@pytest.mark.input_case
@pytest.mark.parametrize("case", CASES)
def test_every_bit_is_read(case: str) -> None:
    file, expected = CASES[case]
    expected = np.asarray(expected, np.float64)
    if case.endswith("I"):
        expected = GRAY.astype(np.float64) * 4096
    header = read_header(file, "x")
    assert header.deep
    assert header.grayscale == (expected.ndim == 2)
    np.testing.assert_allclose(read_values(file, "x").values, expected, rtol=1e-6)
    low, high = float(expected.min()), float(expected.max())
    picture = read_picture(file, "x", between=(low, high))
    assert (picture.size, picture.mode == "L") == (header.size, header.grayscale)
    if "rgba" not in case and "alpha" not in case:
        scaled = (expected - low) * 255 / (high - low)
        np.testing.assert_allclose(np.asarray(picture), scaled, atol=0.5001)


def test_transparent_parts_are_white() -> None:
    see_through = np.stack([GRAY, np.where(GRAY < 500, 0, 65535).astype("u2")], axis=2)
    found = np.asarray(read_picture(png16(see_through), "x", between=(0, 999)))
    assert (found[GRAY < 500] == 255).all()
    np.testing.assert_allclose(found[GRAY >= 500], GRAY[GRAY >= 500] * 255.0 / 999, atol=0.5001)
    one_gray = saved(Image.fromarray(GRAY), transparency=999)
    assert np.asarray(read_picture(one_gray, "x", between=(0, 999)))[0, 1] == 255
    assert np.asarray(read_picture(one_gray, "x", between=(0, 2000)))[0, 1] == 255


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param(tiff(RGB, planes=2), "rare way", id="separate planes"),
        pytest.param(tiff(RGB, "<", DEFLATE, planes=2), "rare way", id="separate planes, deflate"),
        pytest.param(tiff(RGBA, extra=1), "rare way", id="premultiplied"),
        pytest.param(png16(GRAY), "from 0 to 999, and no training", id="scale unknown"),
    ],
)
def test_what_cannot_be_read_right_is_refused(file: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^example 'test-3': the picture .*{message}"):
        read_picture(file, "example 'test-3'")


# --- the scale of a study -------------------------------------------------------------------------


def rows_of(*files: dict[str, Any], split: str = "train") -> datasets.Dataset:
    ids = [f"{split}-{row}" for row in range(len(files))]
    rows = {"input": list(files), "label": [0] * len(files), "id": ids}
    return datasets.Dataset.from_dict(rows).cast_column("input", datasets.Image(decode=False))


def pixels(rows: datasets.Dataset, encoding: dict[str, Any], **options: Any) -> np.ndarray:
    encoded = encode([rows[i] for i in range(len(rows))], Options(**options), encoding)
    assert encoded.thumbnails is not None
    channels = encoding["shape"][0]
    found = encoded.arrays["input"]
    shown = np.stack([np.asarray(one).reshape(5, 4, channels) for one in encoded.thumbnails])
    np.testing.assert_array_equal(shown.transpose(0, 3, 1, 2), found)
    return found


@pytest.mark.input_case
@pytest.mark.parametrize("save", [png16, tiff], ids=["png", "tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [None, 3], ids=["gray", "rgb"])
def test_values_of_any_number_of_bits_fill_the_eight(
    save: Any, bits: int, channels: int | None
) -> None:
    top, shape = 2**bits - 1, (5, 4) if channels is None else (5, 4, channels)
    train = rows_of(*(save(values(top, *shape, seed=seed)) for seed in range(3)))
    encoding = plan_encoding(train, Options(), ["a"])
    assert (encoding["values"]["low"], encoding["values"]["high"]) == (0, top)
    expected = values(top, *shape).reshape(5, 4, -1).transpose(2, 0, 1) * 255.0 / top
    np.testing.assert_allclose(pixels(train, encoding)[0], expected, atol=0.5001)
    assert encoding["mean"][0] == pytest.approx(0.5, abs=0.15)


def test_test_and_live_pictures_get_the_scale_of_the_training_split() -> None:
    train = rows_of(png16(values(800, 5, 4) + np.uint16(100)), png16(values(500, 5, 4, seed=1)))
    encoding = plan_encoding(train, Options(), ["a"])
    assert (encoding["values"]["low"], encoding["values"]["high"]) == (0, 900)
    other = np.array([[0, 450, 900, 2000]] * 5, np.uint16)
    test = rows_of(png16(other), split="test")
    assert pixels(test, encoding)[0, 0, 0].tolist() == [0, 128, 255, 255]
    accepted = accept({"picture": png16(other)["bytes"]}, Options(), encoding)
    live = encode([accepted.row], accepted.options, encoding).arrays["input"]
    assert live[0, 0, 0].tolist() == [0, 128, 255, 255]
    assert accepted.notes == ["Its values from 0 to 900 became 0 to 255, as in training pictures."]
    file = saved(Image.fromarray(noise(5, 4)))["bytes"]
    (eight,) = accept({"picture": file}, Options(), encoding).notes
    assert eight.startswith("It has 8 bits a value and was not scaled")


def said(train: datasets.Dataset, test: datasets.Dataset, **options: Any) -> tuple[str, str]:
    """(notes, warnings) of a built dataset."""
    task, chosen = load_task("image-classification"), Options(**options)
    encoding = task.plan_encoding(train, chosen, ["a"])
    arrays = {
        split: [shard.arrays for shard in encode_split(rows, task, chosen, encoding)]
        for split, rows in (("train", train), ("test", test))
    }
    found = remarks(test, encoding, arrays)
    return " ".join(found.notes), " ".join(found.warnings)


HOT = values(255, 50, 40)
SIXTEEN = png16(values(65535, 5, 4))
HOT[25, 20] = 65535
EIGHT, TEN = saved(Image.fromarray(noise(5, 4))), png16(GRAY)


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("train", "test", "options", "note", "warning"),
    [
        pytest.param([EIGHT], [EIGHT], {}, "", "", id="8 bits only"),
        pytest.param([TEN], [TEN], {}, "1 of 1.*0 to 999", "", id="10 bits"),
        pytest.param([EIGHT, TEN], [TEN], {}, "1 of 2", "are mixed", id="mixed training"),
        pytest.param([TEN], [EIGHT], {}, "1 of 1", "are mixed", id="mixed test"),
        pytest.param(
            [TEN], [png16(values(4095, 5, 4))], {}, "", r"\d\d% of the values.*outside 0 to 999",
            id="test beyond",
        ),
        pytest.param(
            [png16(HOT)],
            [TEN], {"image_size": 4}, "0 to 65,535", "few of the 256 grays", id="hot pixels",
        ),
        pytest.param([EIGHT], [SIXTEEN], {}, "", "no training picture has", id="16-bit test"),
        pytest.param([EIGHT, TEN], [TEN], {"value_range": (0, 4095)}, "0 to 4,095", "", id="given"),
    ],
)  # fmt: skip
def test_what_was_done_is_said(
    train: list[Any], test: list[Any], options: dict[str, Any], note: str, warning: str
) -> None:
    notes, warnings = said(rows_of(*train), rows_of(*test, split="test"), **options)
    assert len(notes) == 0 or re.search(note, notes)
    assert bool(notes) == (train != [EIGHT])
    assert bool(warnings) == bool(warning)
    assert re.search(warning, warnings)


def test_eight_bits_kept_in_sixteen_are_those_of_the_other_pictures() -> None:
    plain = noise(5, 4)
    plain[plain > 200] = 200
    train = rows_of(saved(Image.fromarray(plain)), png16(plain.astype("u2")))
    encoding = plan_encoding(train, Options(), ["a"])
    found = pixels(train, encoding)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0, 0], plain)


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="value_range"):
        plan_encoding(rows_of(TEN), Options(value_range=(5, 5)), ["a"])


def test_a_study_of_eight_bits_is_encoded_as_before() -> None:
    assert "values" not in plan_encoding(rows_of(EIGHT), Options(), ["a"])
