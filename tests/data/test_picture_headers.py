"""Every format × orientation × mode: the header's size is the decoded size and the thumbnail's."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data.picture_budget import FORMATS
from engine.data.pictures import Header, read_header, read_picture
from engine.data.thumbnails import thumbnail
from tests.builders.picture_files import DEFLATE, tiff

ORIENTATION = 0x0112
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")
MODES += ("I;16B",)
SIZE = (40, 24)
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}
TURNING = ("AVIF", "JPEG", "PNG", "TIFF", "WEBP")
LOSSLESS = {"TIFF": ({}, {"compression": "tiff_lzw"}), "PNG": ({},), "WEBP": ({"lossless": True},)}


def source(mode: str) -> Image.Image:
    """A picture whose corners differ; 16-bit ones use all bits."""
    gray = np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
    if mode in ("I", "F", "I;16", "I;16B"):
        kind = {"I": np.int32, "F": np.float32, "I;16": "<u2", "I;16B": ">u2"}[mode]
        deep = (gray * 257).astype(kind)
        return Image.frombytes(mode, SIZE, deep.tobytes())
    picture = Image.fromarray(gray.astype(np.uint8))
    if mode in ("PA", "LAB"):
        return Image.new(mode, SIZE, 9 if mode == "PA" else (99, 9, 9))
    return picture.convert("RGB").convert(mode) if mode != "LA" else picture.convert("LA")


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes | None:
    """The file; None if the format has no such mode."""
    file = io.BytesIO()
    try:
        picture.save(file, kind, **options)
    except (OSError, ValueError, KeyError):
        return None
    return file.getvalue()


def check(content: bytes, turned: bool | None = None) -> Image.Image:
    """The decoded picture, of the size and the color that its header tells."""
    file = {"bytes": content, "path": None}
    header = read_header(file, "x")
    decoded = read_picture(file, "x", between=(0, 65535))
    assert header == Header(decoded.size, decoded.mode == "L", header.deep)
    for cell in (8, 64):
        width, height = thumbnail(decoded, cell).size
        assert abs(width * header.size[1] - height * header.size[0]) <= max(header.size)
    if turned is not None:
        assert header.size == (SIZE[::-1] if turned else SIZE)
    return decoded


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in FORMATS for mode in MODES if saved(source(mode), kind) is not None],
)
def test_the_header_tells_the_decoded_size(kind: str, mode: str) -> None:
    picture = source(mode)
    for options in LOSSLESS.get(kind, ({},)):
        upright = saved(picture, kind, **options)
        if upright is None:  # a compression without this mode
            continue
        expected = np.asarray(check(upright, turned=False))
        for orientation, turn in TURNS.items():
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            content = saved(picture, kind, exif=exif, **options)
            assert content is not None
            decoded = check(content, turned=kind in TURNING and orientation >= 5)
            if kind in LOSSLESS:
                np.testing.assert_array_equal(np.asarray(decoded), turn(expected))


@pytest.mark.input_case
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("case", ["tiff XMP", "png XMP", "png eXIf last", "mpo", "tiff 16-bit rgb"])
def test_orientations_kept_elsewhere(case: str, orientation: int) -> None:
    picture, turned = source("RGB"), orientation >= 5
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    xmp = f'<x:xmpmeta tiff:Orientation="{orientation}"/>'
    content: bytes | None
    if case == "tiff XMP":
        content = saved(picture, "TIFF", tiffinfo={700: xmp.encode()})
    elif case == "png XMP":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        content = saved(picture, "PNG", pnginfo=info)
    elif case == "png eXIf last":
        plain, body = saved(picture, "PNG"), exif.tobytes().removeprefix(b"Exif\0\0")
        assert plain is not None
        chunk = b"eXIf" + body
        chunk = len(body).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        content = plain[:-12] + chunk + plain[-12:]
    elif case == "mpo":
        content = saved(picture, "MPO", save_all=True, append_images=[picture], exif=exif)
    else:
        deep = np.asarray(picture).astype("u2") * 257
        for order in "<>":
            for compression in (1, DEFLATE):
                file = tiff(deep, order, compression, orientation=orientation)
                found = check(file["bytes"], turned)
                np.testing.assert_array_equal(np.asarray(found), TURNS[orientation](picture))
        return
    assert content is not None
    decoded = np.asarray(check(content, turned))
    np.testing.assert_allclose(decoded, TURNS[orientation](np.asarray(picture)), atol=9)
