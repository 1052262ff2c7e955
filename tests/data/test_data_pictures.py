"""Pictures of every kind become 8-bit grayscale or RGB; thumbnails survive their sheets."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.build.encoding import encode_split
from engine.data import SPRITES_PER_SHEET, crop, sprite_sheet, thumbnail_box
from engine.data.pictures import Header, read_header, read_picture
from engine.data.sources import load_source
from engine.data.thumbnails import cut_thumbnails, thumbnail
from engine.store.errors import DataError, SpecError
from engine.store.spec import DataSpec
from engine.tasks import load_task
from engine.tasks.image_classification import Options, encode, plan_encoding


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


GREY, COLOR = Image.fromarray(noise(5, 4)), Image.fromarray(noise(5, 4, 3))


def pixels_of(content: dict[str, Any]) -> np.ndarray:
    return np.asarray(read_picture(content, "example 'x'"))


# --- kinds of pictures ----------------------------------------------------------------------------


def test_grayscale_and_color_keep_every_pixel() -> None:
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(pixels_of(saved(GREY, kind)), GREY)
        np.testing.assert_array_equal(pixels_of(saved(COLOR, kind)), COLOR)


def test_transparent_parts_become_white() -> None:
    rgba = noise(5, 4, 4)
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    alpha = rgba[..., 3:] / 255
    found = pixels_of(saved(Image.fromarray(rgba)))
    np.testing.assert_allclose(found, rgba[..., :3] * alpha + 255 * (1 - alpha), atol=1)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == rgba[0, 1, :3].tolist()
    grey = Image.merge("LA", [GREY, Image.new("L", (4, 5), 0)])
    assert (pixels_of(saved(grey)) == 255).all()
    assert pixels_of(saved(grey)).shape == (5, 4)


def test_transparent_colors_and_palettes() -> None:
    palette = Image.new("P", (4, 5), 1)
    palette.putpalette([9, 8, 7, 1, 2, 3])
    assert pixels_of(saved(palette))[0, 0].tolist() == [1, 2, 3]
    assert pixels_of(saved(palette, transparency=1))[0, 0].tolist() == [255] * 3
    black = Image.new("RGB", (4, 5))
    assert pixels_of(saved(black, transparency=(0, 0, 0)))[0, 0].tolist() == [255] * 3


def test_cmyk_16_bits_and_1_bit() -> None:
    cmyk = Image.new("CMYK", (4, 5), (0, 255, 255, 0))
    assert pixels_of(saved(cmyk, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    deep = np.arange(20, dtype=np.uint16).reshape(5, 4) * 3000
    np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(deep))), deep >> 8)
    np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(deep), "TIFF")), deep >> 8)
    bits = GREY.point(lambda value: 255 * (value > 99)).convert("1")
    np.testing.assert_array_equal(pixels_of(saved(bits)), np.asarray(bits.convert("L")))


def test_exif_rotates_the_picture_and_its_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: turn by 90 degrees clockwise
    content = saved(COLOR, exif=exif)
    np.testing.assert_array_equal(pixels_of(content), np.rot90(np.asarray(COLOR), -1))
    assert read_header(content, "x") == Header((5, 4), grayscale=False, deep=False)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 5), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert pixels_of(content)[0, 0].tolist() == [255, 0, 0]


def test_large_jpegs_are_reduced_while_they_are_decoded() -> None:
    picture = Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 50)
    content = saved(picture, "JPEG")
    assert read_picture(content, "x").size == (640, 480)
    small = read_picture(content, "x", at_least=64)
    assert small.size == (160, 120)


# --- bad pictures ---------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


BAD = {
    "nothing": (None, "a picture was expected and nothing was found"),
    "text": ("a text", "a picture was expected and str was found"),
    "empty": ({"bytes": None, "path": None}, "neither bytes nor a path"),
    "missing": ({"bytes": None, "path": "/no/a.png"}, "the picture /no/a.png does not exist"),
    "no picture": ({"bytes": b"hello", "path": "a.png"}, "picture a.png is damaged or no picture"),
    "postscript": ({"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n", "path": None}, "no picture of a known"),
    "cut short": ({"bytes": saved(COLOR)["bytes"][:60], "path": "b.png"}, "b.png is damaged"),
    "cut jpeg": ({"bytes": saved(COLOR, "JPEG")["bytes"][:-40], "path": None}, "is damaged"),
    "large": ({"bytes": png_header(9000, 9000), "path": None}, "9000 × 9000, more pixels"),
    "bomb": ({"bytes": png_header(90000, 90000), "path": None}, "far more pixels"),
    "floats": (saved(Image.new("F", (2, 2)), "TIFF"), "no training picture tells their scale"),
    "32 bits": (saved(Image.new("I", (2, 2), 1 << 20), "TIFF"), "tells their scale.*value_range"),
    "NaN": (saved(Image.new("F", (2, 2), float("nan")), "TIFF"), "holds NaN or infinity"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_picture_is_refused_in_one_line(name: str) -> None:
    content, message = BAD[name]
    with pytest.raises(DataError, match=f"^example 'train-3': .*{message}") as error:
        read_picture(content, "example 'train-3'")
    assert "\n" not in str(error.value)


def turned(kind: str) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(COLOR, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))


WHOLE = {kind: turned(kind)["bytes"] for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP")}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged tags
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_never_raise_anything_else(kind: str, place: int, wrong: bytes) -> None:
    content = bytearray(WHOLE[kind])
    place %= len(content)
    content[place : place + len(wrong)] = wrong
    damaged = {"bytes": bytes(content), "path": None}
    with contextlib.suppress(DataError):
        read_header(damaged, "x")
    with contextlib.suppress(DataError):
        assert read_picture(damaged, "x").mode in ("L", "RGB")


# --- the task's encoding --------------------------------------------------------------------------


def rows_of(*contents: dict[str, Any]) -> datasets.Dataset:
    n = len(contents)
    rows = {
        "input": list(contents),
        "label": [i % 2 for i in range(n)],
        "id": [f"train-{i}" for i in range(n)],
    }
    return datasets.Dataset.from_dict(rows).cast_column("input", datasets.Image(decode=False))


@pytest.mark.parametrize(
    ("contents", "color", "channels"),
    [
        ((GREY, GREY), "keep", 1),
        ((GREY, COLOR), "keep", 3),
        ((COLOR, COLOR), "grey", 1),
        ((GREY, GREY), "rgb", 3),
    ],
)
def test_color(contents: tuple[Image.Image, ...], color: Any, channels: int) -> None:
    rows = rows_of(*map(saved, contents))
    options = Options(color=color)
    encoding = plan_encoding(rows, options, ["a", "b"])
    assert encoding["shape"] == [channels, 5, 4]
    assert len(encoding["mean"]) == len(encoding["std"]) == channels
    encoded = encode([rows[i] for i in range(2)], options, encoding)
    mode = "L" if channels == 1 else "RGB"
    expected = np.asarray(contents[0].convert(mode)).reshape(5, 4, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(encoded.arrays["input"][0], expected)


def test_a_color_test_picture_after_grayscale_training_is_refused() -> None:
    encoding = plan_encoding(rows_of(saved(GREY)), Options(), ["a", "b"])
    with pytest.raises(DataError, match=r"'test-0': the picture is in color.*Set color"):
        encode([{"input": saved(COLOR), "label": 0, "id": "test-0"}], Options(), encoding)


def test_pictures_of_two_sizes_need_an_image_size() -> None:
    other = Image.fromarray(noise(3, 9))
    with pytest.raises(DataError, match=r"'train-0' has 4 × 5 pixels, 'train-1' has 9 × 3"):
        plan_encoding(rows_of(saved(GREY), saved(other)), Options(), ["a", "b"])
    encoding = plan_encoding(rows_of(saved(GREY)), Options(), ["a", "b"])
    with pytest.raises(DataError, match=r"'test-0': the picture has 9 × 3 pixels.*Set image_size"):
        encode([{"input": saved(other), "label": 0, "id": "test-0"}], Options(), encoding)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_resizing(resize: Any) -> None:
    """A white middle square between black sides, twice as wide as high."""
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 4:12] = 255
    options = Options(image_size=(8, 8), resize=resize, mean=0.5, std=0.5)
    rows = rows_of(saved(Image.fromarray(pixels)))
    encoding = plan_encoding(rows, options, ["a", "b"])
    assert (encoding["shape"], encoding["cell"]) == ([1, 8, 8], 16)
    encoded = encode([rows[0]], options, encoding)
    found = encoded.arrays["input"][0, 0] > 127
    width, height = {"squash": (4, 8), "crop": (8, 8), "pad": (4, 4)}[resize]
    assert (found.any(0).sum(), found.any(1).sum()) == (width, height)
    assert encoded.thumbnails is not None
    np.testing.assert_array_equal(encoded.thumbnails[0], pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.1, 0.2]}, r"task.mean = \[0.1, 0.2\]: 2 values for pictures of 1 channel"),
        ({"std": 0.0}, r"task.std = 0.0: it divides"),
    ],
)
def test_impossible_normalization_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_encoding(rows_of(saved(GREY)), Options(**options), ["a", "b"])


def test_pictures_of_one_gray_have_a_positive_deviation() -> None:
    encoding = plan_encoding(rows_of(saved(Image.new("L", (2, 2), 51))), Options(), ["a", "b"])
    assert encoding["mean"] == [0.2]
    assert encoding["std"] == [round(1 / 255, 6)]


def test_a_missing_file_is_named_by_example_and_path(tmp_path: Path) -> None:
    GREY.save(tmp_path / "0.png")
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("file,label\n0.png,a\nno.png,b\n")
    source = load_source(DataSpec(source="."), tmp_path)
    with pytest.raises(DataError, match=r"'train-1': the picture /.*/no\.png does not exist"):
        plan_encoding(source.train, Options(), source.classes)


# --- sheets ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 12), st.sampled_from(["L", "RGB"]))
def test_thumbnails_come_out_of_their_sheet_unchanged(data: Any, cell: int, mode: str) -> None:
    side = st.integers(1, cell)
    sizes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=40))
    thumbnails = [
        Image.fromarray(noise(h, w, 3, seed=i)).convert(mode) for i, (h, w) in enumerate(sizes)
    ]
    content = sprite_sheet(thumbnails, cell)
    assert content == sprite_sheet(thumbnails, cell)
    with Image.open(io.BytesIO(content)) as sheet:
        for position, picture in enumerate(thumbnails):
            found = crop(sheet, position, cell)
            np.testing.assert_array_equal(found, picture.convert("RGB"))


def test_every_cell_has_a_place_of_its_own() -> None:
    boxes = [thumbnail_box(position, 7) for position in range(SPRITES_PER_SHEET)]
    assert boxes[0] == (0, 0, 7, 7)
    assert boxes[9] == (7, 7, 14, 14)
    assert len(set(boxes)) == SPRITES_PER_SHEET
    assert max(right for _, _, right, _ in boxes) == max(bottom for *_, bottom in boxes) == 7 * 8


def test_a_full_sheet_of_full_cells_has_no_alpha() -> None:
    thumbnails = [Image.fromarray(noise(3, 3, seed=i)) for i in range(SPRITES_PER_SHEET)]
    with Image.open(io.BytesIO(sprite_sheet(thumbnails, 3))) as sheet:
        assert (sheet.mode, sheet.size) == ("RGB", (24, 24))
        last = crop(sheet, SPRITES_PER_SHEET - 1, 3)
        np.testing.assert_array_equal(last, thumbnails[-1].convert("RGB"))


def test_a_thumbnail_is_centered_in_its_cell() -> None:
    with Image.open(io.BytesIO(sprite_sheet([Image.new("L", (4, 2))] * 2, 8))) as sheet:
        assert sheet.crop(thumbnail_box(1, 8)).getbbox() == (2, 3, 6, 5)


def test_sheets_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="does not fit a cell of 4"):
        sprite_sheet([GREY], 4)
    for n in (0, SPRITES_PER_SHEET + 1):
        with pytest.raises(DataError, match=f"not {n}"):
            sprite_sheet([GREY] * n, 5)
    with Image.open(io.BytesIO(sprite_sheet([GREY], 5))) as sheet, pytest.raises(DataError):
        crop(sheet, 1, 5)
    full = [Image.fromarray(noise(3, 3, seed=i)) for i in range(8)]  # a line, and no alpha
    with Image.open(io.BytesIO(sprite_sheet(full, 3))) as sheet, pytest.raises(DataError):
        crop(sheet, 8, 3)


@settings(max_examples=20, deadline=None)
@given(some_rows=st.lists(st.integers(0, 129), min_size=1, max_size=SPRITES_PER_SHEET))
def test_a_gathered_sheet_holds_any_rows_in_their_order(
    three_sheets: Path, some_rows: list[int]
) -> None:
    stored = partial(sheet_path, three_sheets)
    with Image.open(io.BytesIO(sprite_sheet(cut_thumbnails(stored, some_rows, 6), 6))) as sheet:
        for place, row in enumerate(some_rows):
            np.testing.assert_array_equal(crop(sheet, place, 6), numbered(row).convert("RGB"))


def test_a_gathered_sheet_refuses_missing_rows(three_sheets: Path) -> None:
    stored = partial(sheet_path, three_sheets)
    for row in (130, 136, 191):  # beside the last one, below it, and far below
        with pytest.raises(DataError):
            cut_thumbnails(stored, [3, row], 6)
    with pytest.raises(FileNotFoundError):
        cut_thumbnails(stored, [192], 6)
    with pytest.raises(DataError, match="not 65"):
        sprite_sheet(cut_thumbnails(stored, [0] * 65, 6), 6)


def numbered(row: int) -> Image.Image:
    """A thumbnail of a size and with pixels of its own."""
    return Image.fromarray(noise(1 + row % 6, 1 + row // 6 % 6, 3, seed=row))


def sheet_path(folder: Path, number: int) -> Path:
    return folder / f"{number}.webp"


@pytest.fixture(scope="module")
def three_sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 thumbnails, so that the last sheet ends early."""
    folder = tmp_path_factory.mktemp("sheets")
    for number in range(3):
        rows = range(130)[number * SPRITES_PER_SHEET :][:SPRITES_PER_SHEET]
        sheet_path(folder, number).write_bytes(sprite_sheet([numbered(row) for row in rows], 6))
    return folder


def test_thumbnails_keep_small_pictures_and_reduce_large_ones() -> None:
    assert thumbnail(GREY, 5) is GREY
    assert thumbnail(Image.new("RGB", (300, 100)), 96).size == (96, 32)


def test_from_dataset_to_sheet_and_back() -> None:
    contents = [Image.fromarray(noise(6, 6, 3, seed=i)) for i in range(20)]
    rows, task, options = (
        rows_of(*map(saved, contents)),
        load_task("image-classification"),
        Options(),
    )
    encoding = task.plan_encoding(rows, options, ["a", "b"])
    found = []
    for shard in encode_split(rows, task, options, encoding, rows_per_shard=8):
        assert shard.thumbnails is not None
        content = sprite_sheet(shard.thumbnails, encoding["cell"])
        with Image.open(io.BytesIO(content)) as sheet:
            found += [crop(sheet, i, encoding["cell"]) for i in range(len(shard.thumbnails))]
    for picture, thumb in zip(contents, found, strict=True):
        np.testing.assert_array_equal(picture, thumb)
