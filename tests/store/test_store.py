"""Files of a study are whole, traceable and refused by name when they are not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from engine import store
from engine.store.errors import StaleError, StoreError

DTYPES = ["<f4", "<f8", "<f2", "<i8", "<i4", "u1", "?"]


@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=5))
    )
)
def test_tensors_come_back_as_they_were(tmp_path_factory, array) -> None:
    path = tmp_path_factory.mktemp("store") / "a.safetensors"
    store.write_tensors(path, {"x": array, "y": np.arange(3)}, "made")
    back = store.read_tensors(path, "made", verify=True)
    np.testing.assert_array_equal(back["x"], array)
    assert (back["x"].dtype, back["x"].shape) == (array.dtype, array.shape)


def test_shards_are_ordinary_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    store.write_tensors(path, {"x": x, "empty": np.empty((0, 4), np.float32)}, "made", {"seed": 1})
    np.testing.assert_array_equal(load_file(path)["x"], x)
    assert store.read_metadata(path) == {"seed": 1}


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, order in (("a", "xy"), ("b", "yx")):
        store.write_tensors(
            tmp_path / name, {key: np.full(3, ord(key)) for key in order}, "made", {"n": 1}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.safetensors"
    store.write_tensors(path, {"x": np.arange(100, dtype=np.float32)}, "made")
    return path


@given(cut=st.integers(0, 600))
def test_a_shard_cut_short_is_refused(tmp_path_factory, cut: int) -> None:
    path = tmp_path_factory.mktemp("store") / "shard.safetensors"
    store.write_tensors(path, {"x": np.arange(100, dtype=np.float32)}, "made")
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(StoreError, match="is broken"):
        store.read_tensors(path)


def test_an_altered_shard_fails_its_checksum(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    store.read_tensors(shard)
    with pytest.raises(StoreError, match="checksum"):
        store.read_tensors(shard, verify=True)


def test_another_fingerprint_is_refused_by_name(shard: Path) -> None:
    with pytest.raises(StaleError, match=str(shard)):
        store.read_tensors(shard, "another")


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (2**60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (1).to_bytes(8, "little") + b"{",
        (30).to_bytes(8, "little") + b'{"x":{"dtype":"F32"}}         ',
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header)
    with pytest.raises(StoreError):
        store.read_tensors(path)


def test_tables_and_json_carry_their_fingerprint(tmp_path: Path) -> None:
    table, text = tmp_path / "t.parquet", tmp_path / "t.json"
    store.write_table(table, pa.table({"id": ["a", "b"]}), "made")
    store.write_json(text, {"n": 1, "x": 0.1}, "made")
    assert store.read_table(table, "made")["id"].to_pylist() == ["a", "b"]
    assert store.read_json(text, "made") == {"n": 1, "x": 0.1}
    for read, path in ((store.read_table, table), (store.read_json, text)):
        with pytest.raises(StaleError):
            read(path, "another")
    text.write_text(text.read_text().replace("0.1", "0.2"))
    with pytest.raises(StoreError, match="checksum"):
        store.read_json(text)
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(StoreError, match="broken"):
        store.read_table(table)


def test_a_renamed_column_fails_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"label": ["a"]})
    store.write_table(path, table, "made")
    store.read_table(path, verify=True)
    metadata = pq.read_schema(path).metadata
    renamed = pa.table({"labem": ["a"]}).replace_schema_metadata(metadata)
    pq.write_table(renamed, path)
    with pytest.raises(StoreError, match="checksum"):
        store.read_table(path, verify=True)


@pytest.mark.parametrize("read", [store.read_tensors, store.read_table, store.read_json])
def test_a_missing_file_is_named(tmp_path: Path, read) -> None:
    with pytest.raises(StoreError, match="is missing"):
        read(tmp_path / "nothing")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {"n": 1}, "made")

    def fill_the_disk() -> None:
        with store.atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="disk is full"):
        fill_the_disk()
    assert store.read_json(path) == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    script = (
        "import numpy as np, pathlib, sys\n"
        "from engine import store\n"
        "for n in range(10**6):\n"
        "    store.write_tensors(pathlib.Path(sys.argv[1]) / f'{n % 7}.safetensors',"
        " {'x': np.full(200_000, n)}, 'made')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.safetensors"))) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == 7
    for path in files:
        store.read_tensors(path, "made", verify=True)
    store.remove_leftovers(tmp_path)
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_file_that_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    """Audits, notes and certificates are written without the lock of a build."""
    path = tmp_path / "a.json"
    with store.atomic(path) as temporary:
        temporary.write_text("{}")
        store.remove_leftovers(tmp_path)
    assert path.read_text() == "{}"
    assert not list(tmp_path.rglob(".*.tmp"))


@given(
    a=st.recursive(st.integers() | st.text() | st.none() | st.booleans(), st.lists, max_leaves=5),
    b=st.recursive(st.integers() | st.text() | st.none() | st.booleans(), st.lists, max_leaves=5),
)
def test_fingerprints_differ_when_their_parts_do(a, b) -> None:
    same = repr(a) == repr(b)
    assert (store.fingerprint_of(a) == store.fingerprint_of(b)) == same


def test_fingerprint_ignores_the_order_of_keys() -> None:
    assert store.fingerprint_of({"a": 1, "b": 2}) == store.fingerprint_of({"b": 2, "a": 1})


def test_a_matrix_filled_in_blocks_is_the_file_that_one_write_gives(tmp_path: Path):
    matrix = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    store.write_tensors(tmp_path / "whole.safetensors", {"scores": matrix}, "made")
    path = tmp_path / "filled.safetensors"
    with store.filling_matrix(path, "scores", (7, 5), "made") as filled:
        for rows, columns in ((slice(3, 7), slice(0, 5)), (slice(0, 3), slice(2, 5))):
            filled.write(rows.start, columns.start, matrix[rows, columns])
        filled.write(0, 0, matrix[:3, :2])
        assert not path.exists()
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    with (
        pytest.raises(RuntimeError, match="stop"),
        store.filling_matrix(path, "scores", (7, 5), "other"),
    ):
        raise RuntimeError("stop")
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert list(tmp_path.glob(".*")) == []
