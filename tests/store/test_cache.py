"""What is kept of files is what they hold now."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from engine import store
from engine.store import cache
from engine.store.cache import FileCache, list_names, read_cached_table, stamp_of
from engine.store.errors import StoreError


def settle(path: Path, seconds: float = 60) -> None:
    """Let a file look as if it had last changed a while ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def write(path: Path, text: str) -> None:
    with store.atomic(path) as temporary:
        temporary.write_text(text)
    settle(path)


def test_a_file_is_read_once_until_it_is_replaced(tmp_path: Path) -> None:
    path, texts = tmp_path / "a", FileCache[str](most=4)
    reads: list[str] = []

    def read() -> str:
        reads.append(path.read_text())
        return reads[-1]

    write(path, "one")
    assert [texts.get(path, read) for _ in range(3)] == ["one"] * 3
    assert len(reads) == 1
    write(path, "two")  # as long as before
    assert texts.get(path, read) == "two"
    before = path.stat()
    with store.atomic(path) as temporary:
        temporary.write_text("six")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and as old: another inode
    assert texts.get(path, read) == "six"


def test_what_changed_just_now_is_not_kept(tmp_path: Path) -> None:
    path, texts = tmp_path / "a", FileCache[str](most=4)
    path.write_text("one")
    stamp = path.stat()
    assert texts.get(path, path.read_text) == "one"
    path.write_text("two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # within one tick of the clock
    assert texts.get(path, path.read_text) == "two"


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    texts = FileCache[str](most=10, size=len)
    reads: list[str] = []

    def get(name: str) -> str:
        path = tmp_path / name
        return texts.get(path, lambda: reads.append(name) or path.read_text())

    for name, text in (("a", "1234"), ("b", "1234"), ("c", "1234"), ("large", "1" * 11)):
        write(tmp_path / name, text)
    for name in ("a", "b", "a", "c", "a", "b", "large", "large"):
        assert get(name)
    assert reads == ["a", "b", "c", "b", "large", "large"]


def test_a_missing_file_is_not_kept(tmp_path: Path) -> None:
    path, texts = tmp_path / "a", FileCache[str](most=4)
    with pytest.raises(FileNotFoundError):
        texts.get(path, path.read_text)
    assert stamp_of(path) is None
    write(path, "one")
    assert texts.get(path, path.read_text) == "one"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        texts.get(path, path.read_text)


def test_threads_share_a_cache(tmp_path: Path) -> None:
    texts = FileCache[str](most=3)
    for name in "abcdef":
        write(tmp_path / name, name)
    with ThreadPoolExecutor(8) as pool:
        names = "abcdef" * 200
        found = pool.map(
            lambda name: texts.get(tmp_path / name, (tmp_path / name).read_text), names
        )
        assert list(found) == list(names)


def test_each_column_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": ["x", "y"], "label": ["1", "2"], "text": ["p", "q"]})
    store.write_table(path, table, "f")
    settle(path)
    reads: list[list[str] | None] = []
    real = cache.read_table

    def counted(path: Path, columns: list[str] | None = None) -> pa.Table:
        reads.append(columns)
        return real(path, columns=columns)

    monkeypatch.setattr(cache, "read_table", counted)
    for columns in (["id", "label"], ["label"], ["text", "id"], ["id"], None, ["text"], None):
        found = read_cached_table(path, columns)
        assert found.column_names == (columns or ["id", "label", "text"])
        assert found.equals(table.select(found.column_names))
    assert reads == [["id", "label"], ["text"], None]
    parts = [key for key in cache._TABLES._values if key[0] == path]
    assert parts == [(path, "whole")]  # not in memory twice
    store.write_table(path, table.slice(1), "f")
    assert read_cached_table(path, ["id"])["id"].to_pylist() == ["y"]
    path.unlink()
    with pytest.raises(StoreError, match="missing"):
        read_cached_table(path, ["id"])


def test_a_folder_is_listed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, listings = tmp_path / "folder", []
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listings.append(path) or real(path))
    assert list_names(folder) == ()
    folder.mkdir()
    for name in ("b", "a", ".hidden"):
        (folder / name).touch()
    settle(folder)
    assert [list_names(folder) for _ in range(3)] == [("a", "b")] * 3
    assert len(listings) == 1
    (folder / "c").touch()
    assert list_names(folder) == ("a", "b", "c")
    (folder / "a").unlink()
    assert list_names(folder) == ("b", "c")
