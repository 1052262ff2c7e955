"""Pictures by reference that people must not trust: one clear line each."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.places import parquet, place
from engine.data.places.place import in_parquet, in_tar, read_bytes
from engine.data.places.survey import survey
from engine.data.reading.tar_files import read_tar, tar_shards
from engine.data.sources import load_source
from engine.store.errors import DataError
from engine.store.spec import DataSpec
from tests.builders.referenced_pictures import jpeg, write_folder, write_parquet

Write = Callable[[Path], None]


def bomb() -> bytes:
    """A PNG of 5 KB with 40,000 × 40,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        whole = name + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 2**20, 9)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- files in a folder ----------------------------------------------------------------------------


def truncated(file: Path) -> None:
    file.write_bytes(jpeg(1)[:-300])


def truncated_png(file: Path) -> None:
    from PIL import Image

    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    file.write_bytes(whole.getvalue()[:-500])


def pixel_bomb(file: Path) -> None:
    file.write_bytes(bomb())


def empty(file: Path) -> None:
    file.write_bytes(b"")


def no_picture(file: Path) -> None:
    file.write_bytes(b"<script>alert(1)</script>" * 20)


def link_out(file: Path) -> None:
    secret = file.parents[3] / "secret.jpg"
    secret.write_bytes(jpeg(7))
    file.unlink()
    file.symlink_to(secret)


def folder_out(file: Path) -> None:
    secret = file.parents[3] / "secrets"
    file.parent.rename(secret)
    file.parent.symlink_to(secret)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def huge(file: Path) -> None:
    with file.open("wb") as content:
        content.write(jpeg(1))
        os.truncate(content.fileno(), place.MOST_BYTES + 1)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncated, "is damaged"),
        (truncated_png, "is damaged"),
        (pixel_bomb, "more pixels than the 64,000,000 that are taken"),
        (empty, "is empty"),
        (no_picture, "no picture of a known format"),
        (link_out, "leads to .*secret.jpg, outside of .*source. A study that keeps pictures by"),
        (folder_out, "leads to .*secrets/000.jpg, outside of .*source"),
        (pipe, "is not a file"),
        (huge, "has 256 MiB, more than the 256 MiB that a picture may have"),
    ],
)
def test_a_spoiled_file_is_refused(spoil: Write, says: str, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source")
    file = source / "train" / "a" / "000.jpg"
    assert len(survey([str(file)], ["train-0"], source)) == 1
    spoil(file)
    with pytest.raises(DataError, match=f"example 'train-0'.*{says}") as error:
        survey([str(file)], ["train-0"], source)
    assert "\n" not in str(error.value)


def test_links_inside_of_the_source_are_followed(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source")
    link = source / "train" / "a" / "link.jpg"
    link.symlink_to(source / "train" / "b" / "001.jpg")
    assert survey([str(link)], ["x"], source) == survey([str(link.resolve())], ["x"], source)


def test_a_jpeg_with_something_after_its_end_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg(1) + b"\0" * 64)
    (found,) = survey([str(file)], ["x"], tmp_path)
    assert found.header.size == (61, 50)


# --- tar files ------------------------------------------------------------------------------------


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **about: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in about.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def packed(*members: tuple[str, bytes, dict[str, object]]) -> Write:
    def write(file: Path) -> None:
        with tarfile.open(file, "w") as tar:
            add(tar, "a/0.jpg", jpeg(0))
            for name, content, about in members:
                add(tar, name, content, **about)

    return write


def cut_off(file: Path) -> None:
    packed(("a/1.jpg", jpeg(1), {}))(file)
    file.write_bytes(file.read_bytes()[:2300])


def claims_more(file: Path) -> None:
    """The last member says that it has a gigabyte."""
    packed()(file)
    content = bytearray(file.read_bytes()[:-1024])
    fake = tarfile.TarInfo("a/1.jpg")
    fake.size = 2**30
    file.write_bytes(bytes(content.rstrip(b"\0")) + b"")
    with file.open("wb") as target:
        whole = bytes(content)
        whole = whole[: 512 + -(-len(jpeg(0)) // 512) * 512]
        target.write(whole + fake.tobuf() + jpeg(1))


def negative(file: Path) -> None:
    """A header whose size is below 0 leads back to the start, for ever."""
    packed()(file)
    whole = file.read_bytes()[: 512 + -(-len(jpeg(0)) // 512) * 512]
    header = bytearray(tarfile.TarInfo("a/1.jpg").tobuf())
    header[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    file.write_bytes(whole + bytes(header) + b"\0" * 2048)


def compressed(file: Path) -> None:
    with tarfile.open(file, "w:gz") as tar:
        add(tar, "a/0.jpg", jpeg(0))


def no_tar(file: Path) -> None:
    file.write_bytes(b"hello" * 500)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (packed(("../../etc/passwd.jpg", jpeg(1), {})), "whose name leads out of it"),
        (packed(("/etc/passwd.jpg", jpeg(1), {})), "whose name leads out of it"),
        (packed(("a/\x1ft0+9\x1f.jpg", jpeg(1), {})), "whose name leads out of it"),
        (
            packed(("a/1.jpg", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})),
            "a/1.jpg is a link to /etc/passwd, not a file",
        ),
        (
            packed(("a/1.jpg", b"", {"type": tarfile.LNKTYPE, "linkname": "../x"})),
            "a/1.jpg is a link to ../x, not a file",
        ),
        (packed(("a/1.jpg", b"", {"type": tarfile.CHRTYPE})), "is no plain file"),
        (packed(("a/0.jpg", jpeg(1), {})), "has two pictures for the example 'a/0'"),
        (packed(("a/1.cls", b"3", {})), "has no picture for the example 'a/1'"),
        (packed(("a/0.json", b"{", {})), "a/0.json cannot be read"),
        (packed(("a/0.json", b"[" * 100_000, {})), "a/0.json cannot be read"),
        (packed(("a/0.txt", b"x" * (2**20 + 1), {})), "has more than 1 MiB of text"),
        (cut_off, "has no end mark, so it is cut off"),
        (claims_more, "should have 1,073,741,824 bytes, and the file ends before"),
        (negative, "(leads back|is no whole tar file)"),
        (compressed, "is compressed"),
        (no_tar, "is no whole tar file"),
    ],
)
def test_a_tar_file_that_lies_is_refused(write: Write, says: str, tmp_path: Path) -> None:
    file = tmp_path / "train.tar"
    write(file)
    with pytest.raises(DataError, match=says) as error:
        read_tar([file])
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_parts_of_examples(tmp_path: Path) -> None:
    about = b'{"n": 3, "deep": {"x": 1}}'
    packed(("a/0.cls", b"7", {}), ("a/0.json", about, {}), ("a/0.npy", b"x", {}))(
        tmp_path / "train.tar"
    )
    rows = read_tar([tmp_path / "train.tar"])
    assert rows.table.column_names == ["image", "label", "n"]
    assert rows.table["label"][:] == [7]
    assert rows.notes == ("Not read in train.tar: parts .npy.",)
    found = rows.table.with_format("arrow")[:]["image"].combine_chunks().field("path")[0].as_py()
    assert read_bytes(found) == jpeg(0)


def test_folders_of_a_tar_file_are_its_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        packed((f"b/{split}.jpg", jpeg(1), {}))(tmp_path / f"{split}.tar")
    source = load_source(DataSpec(source=str(tmp_path)), Path("/"))
    assert source.classes == ["a", "b"]
    assert source.train["file"][:] == ["train.tar/a/0.jpg", "train.tar/b/train.jpg"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        packed()(tmp_path / f"train-{number:06d}.tar")
    with pytest.raises(DataError, match=r"has no shard number 2 of train.tar, of 4"):
        tar_shards(tmp_path, "train")


def test_a_tar_file_beside_the_folder_that_it_became_is_not_read(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source")
    packed()(source / "train.tar")
    assert len(load_source(DataSpec(source=str(source)), Path("/")).train) == 90


# --- places ---------------------------------------------------------------------------------------


def test_places_that_are_not_there(tmp_path: Path) -> None:
    packed()(tmp_path / "a.tar")
    file = str(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a/0.jpg in .*: the file ends before the picture does"):
        read_bytes(in_tar(file, 512, 10**7, "a/0.jpg"))
    table = str(next(write_parquet(tmp_path / "parquet").glob("train-00000*")))
    assert read_bytes(in_parquet(table, 1, 2, "image.bytes", "")).startswith(b"\xff\xd8")
    for group, row, says in ((9, 0, "has no row group 9"), (0, 99, "has no row 99")):
        with pytest.raises(DataError, match=says):
            read_bytes(in_parquet(table, group, row, "image.bytes", ""))


def test_a_row_group_that_would_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = str(next(write_parquet(tmp_path / "parquet").glob("train-00000*")))
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 1_000)
    with pytest.raises(DataError, match=r"row group 1 holds .* GiB of pictures, which are read"):
        read_bytes(in_parquet(table, 1, 2, "image.bytes", ""))
