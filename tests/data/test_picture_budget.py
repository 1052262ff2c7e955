"""Pictures that would take long to read are refused before they are; all others are let through."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from engine.data.picture_budget import MOST_PIXELS, check_budget
from engine.store.errors import DataError


def saved(format: str, side: int = 64, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png_with(*chunks: bytes) -> bytes:
    """A PNG with more chunks before its pixels."""
    content = saved("PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def png_of_small_blocks() -> bytes:
    content = saved("PNG", 200)
    pixels = b"".join(chunk(b"IDAT", content[at : at + 1]) for at in range(41, len(content) - 16))
    return content[:33] + pixels + content[-12:]


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    file = io.BytesIO()
    Image.new("RGB", (2048, 2048), "gray").save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + scans * content[last:-2] + content[-2:]


def rle_bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    pixels = b"\xff\x00" * (width // 255 + 1) * height + b"\0\1"
    start = 14 + len(header) + 1024
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + header
        + bytes(1024)
        + (pixels)
    )


def gif_with_comment(count: int) -> bytes:
    content = saved("GIF", mode="P")
    start = 13 + 768
    return content[:start] + b"\x21\xfe" + count * (b"\xff" + b"c" * 255) + b"\0" + content[start:]


def gif_of_many_blocks() -> bytes:
    """Pixels in blocks of one byte each."""
    content = saved("GIF", mode="P")
    return content[:-2] + 300_000 * b"\x01\x07" + content[-2:]


def tiff_with_strips(count: int) -> bytes:
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (273, 4, count, 200)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4 * min(count, 1000))


def large(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (8000, 8000)).save(file, "PNG")
    return file.getvalue()


SLOW: dict[str, tuple[Callable[[], bytes], str]] = {
    "png of 300,000 text chunks": (
        lambda: png_with(*[chunk(b"tEXt", b"k\0v")] * 300_000),
        "chunks beside its pixels",
    ),
    "png of compressed texts": (
        lambda: png_with(*[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000)))] * 2_000),
        "chunks beside its pixels",
    ),
    "png with 19 MB of text": (
        lambda: png_with(chunk(b"tEXt", b"k\0" + 19_000_000 * b"v")),
        "18 MiB of chunks beside its pixels",
    ),
    "png in blocks of one byte": (png_of_small_blocks, "blocks of pixels"),
    "png of 8000 x 8000": (lambda: too_many(8000, 8000)["png"], "8,000 × 8,000 pixels"),
    "one-bit png of 8000 x 8000": (lambda: large("1"), "8,000 × 8,000 pixels"),
    "run-length bmp": (lambda: rle_bmp(3000, 3000), "slow to read"),
    "run-length bmp of few bytes": (
        lambda: rle_bmp(20, 20)[:18] + struct.pack("<ii", 4000, 4000) + rle_bmp(20, 20)[26:],
        "slow to read",
    ),
    "ppm with a comment of 19 MB": (
        lambda: b"P6\n#" + 19_000_000 * b"c" + b"\n8 8\n255\n" + bytes(192),
        "header",
    ),
    "ppm with 100,000 comments": (
        lambda: b"P6\n" + 100_000 * b"#c\n" + b"8 8\n255\n" + bytes(192),
        "header",
    ),
    "ppm in plain text": (lambda: b"P3\n2000 2000\n255\n" + 4_000_000 * b"7 ", "slow to read"),
    "ppm of odd maximum": (lambda: b"P6\n2000 2000\n200\n" + bytes(12_000_000), "slow to read"),
    "jpeg of 300 scans": (lambda: jpeg_of_scans(300), "goes over its"),
    "jpeg of 2,000 scans": (lambda: jpeg_of_scans(2_000), "scans"),
    "jpeg of 100,000 comments": (
        lambda: saved("JPEG")[:2] + 100_000 * b"\xff\xfe\0\3c" + saved("JPEG")[2:],
        "segments beside its pixels",
    ),
    "gif with a comment of 4 MB": (lambda: gif_with_comment(16_000), "blocks beside its pixels"),
    "gif in blocks of one byte": (gif_of_many_blocks, "blocks of pixels"),
    "tiff of a million strips": (lambda: tiff_with_strips(1_000_000), "values of one tag"),
    "21 MiB": (lambda: saved("PNG") + bytes(21 * 2**20), "21.0 MiB"),
    "an unknown format": (lambda: b"8BPS" + bytes(100), "no picture of a known format"),
}


@pytest.mark.input_case
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_picture_is_refused_before_it_is_decoded(name: str) -> None:
    make, words = SLOW[name]
    content = make()
    with pytest.raises(DataError) as refused:
        check_budget(content, "Yours")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


ORDINARY: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved("PNG"),
    "interlaced png": lambda: saved("PNG", mode="RGBA", interlace=1),
    "png with texts": lambda: png_with(*[chunk(b"tEXt", b"k\0v")] * 100),
    "one-bit png": lambda: saved("PNG", mode="1"),
    "jpeg": lambda: saved("JPEG", 1500, quality=95),
    "progressive jpeg": lambda: saved("JPEG", 1500, progressive=True),
    "cmyk jpeg": lambda: saved("JPEG", mode="CMYK"),
    "gif": lambda: saved("GIF", mode="P"),
    "animated gif": lambda: saved(
        "GIF", mode="P", save_all=True, append_images=[Image.new("P", (64, 64), 3)] * 5
    ),
    "bmp": lambda: saved("BMP", 600),
    "small run-length bmp": lambda: rle_bmp(300, 300),
    "ppm": lambda: saved("PPM", 600),
    "ppm with a comment": lambda: b"P6\n# by GIMP\n2 2\n255\n" + bytes(12),
    "pbm": lambda: saved("PPM", mode="1"),
    "pgm": lambda: saved("PPM", mode="L"),
    "tiff": lambda: saved("TIFF", 600),
    "lzw tiff": lambda: saved("TIFF", 600, compression="tiff_lzw"),
    "webp": lambda: saved("WEBP"),
    "lossless webp": lambda: saved("WEBP", lossless=True),
    "avif": lambda: saved("AVIF", speed=10),
}


@pytest.mark.input_case
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_picture_is_let_through(name: str) -> None:
    check_budget(ORDINARY[name](), "Yours")


def too_many(width: int, height: int) -> dict[str, bytes]:
    """Headers of one picture in every format that are read from the bytes alone."""
    w, h = width, height
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4)
    vp8x += (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")
    return {
        "png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)),
        "jpeg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 8, 8, h, w) + bytes(4),
        "gif": b"GIF89a" + struct.pack("<HHBBB", w, h, 0, 0, 0) + b";",
        "bmp": b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, w, -h, 1, 24, 0),
        "ppm": f"P6 {w} {h} 255\n".encode(),
        "tiff": b"MM\0*"
        + struct.pack(">IH", 8, 2)
        + struct.pack(">HHII", 256, 4, 1, w)
        + struct.pack(">HHIHH", 257, 3, 1, h, 0),
        "webp": b"RIFF" + bytes(4) + b"WEBP" + vp8x,
        "avif": bytes(4) + b"ftypavif" + bytes(8) + b"ispe" + bytes(4) + struct.pack(">II", w, h),
    }


@pytest.mark.parametrize("format", too_many(1, 1))
def test_the_size_of_every_format_is_read_from_its_header(format: str) -> None:
    with pytest.raises(DataError, match=r"6,000 × 5,000 pixels"):
        check_budget(too_many(6_000, 5_000)[format], "Yours")
    assert MOST_PIXELS < 6_000 * 5_000
