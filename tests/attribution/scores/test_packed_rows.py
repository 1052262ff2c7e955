"""Packed rows: the error has its bound, and every way to read them gives the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.packed_rows import (
    BLOCKS,
    Storage,
    bytes_per_row,
    largest_error,
    pack,
    unpack,
)
from engine.attribution.scores.row_shards import RowShards
from engine.attribution.scores.top_k import top_k
from engine.store import read_tensors, write_tensors

KINDS: list[Storage] = ["float32", "float16", "int8", "int4"]


def features(n: int, p: int, seed: int, spread: float) -> np.ndarray:
    """Rows whose sizes differ by many orders of magnitude, some of them 0."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-spread, spread, (n, 1)) * (rng.random((n, 1)) > 0.1)
    return (rng.standard_normal((n, p)) * sizes).astype(np.float32)


def largest_in_block(rows: np.ndarray, storage: Storage) -> np.ndarray:
    """For each number the largest size among those that it shares a scale with."""
    out, block = np.empty_like(rows), BLOCKS.get(storage, 128)
    for start in range(0, rows.shape[1], block):
        some = np.abs(rows[:, start : start + block])
        out[:, start : start + block] = some.max(axis=1, keepdims=True)
    return out


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 6),
    p=st.integers(1, 400),
    seed=st.integers(0, 999),
    spread=st.floats(0, 15),
    storage=st.sampled_from(KINDS),
)
def test_no_number_is_off_by_more_than_its_share(
    n: int, p: int, seed: int, spread: float, storage: Storage
) -> None:
    rows = features(n, p, seed, spread)
    read = unpack(pack(rows, storage))
    assert read.shape == rows.shape == read[:].shape
    assert len(read) == n
    bound = largest_in_block(rows, storage) * (largest_error(storage) + 1e-6)
    assert (np.abs(read[:] - rows) <= bound).all()


@pytest.mark.parametrize("storage", KINDS)
def test_the_bound_is_met(storage: Storage) -> None:
    """Halfway between two levels: no better bound could be promised."""
    rows = features(50, 384, 0, 0)
    off = np.abs(unpack(pack(rows, storage))[:] - rows) / np.maximum(
        largest_in_block(rows, storage), 1e-30
    )
    assert off.max() >= 0.9 * largest_error(storage)


@pytest.mark.parametrize("p", [1, 31, 33, 127, 128, 129, 300])
@pytest.mark.parametrize("storage", KINDS)
def test_every_way_to_read_gives_the_same_numbers(storage: Storage, p: int) -> None:
    rows = features(9, p, 1, 2)
    packed = unpack(pack(rows, storage))
    whole = packed[:]
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(packed[2:5], whole[2:5])
    np.testing.assert_array_equal(packed[np.array([7, 0, 7])], whole[[7, 0, 7]])
    np.testing.assert_array_equal(packed[1:8, p // 3 :], whole[1:8, p // 3 :])
    shards = RowShards.of([unpack(pack(rows[:4], storage)), unpack(pack(rows[4:], storage))])
    np.testing.assert_array_equal(shards.read(range(2, 8), np.empty((6, p), "f4")), whole[2:8])
    np.testing.assert_array_equal(
        shards.take(np.array([8, 1, 5]), np.empty((3, p), "f4")), whole[[8, 1, 5]]
    )


@pytest.mark.parametrize("storage", KINDS)
def test_a_row_takes_the_bytes_that_are_promised(storage: Storage) -> None:
    for p in (1, 128, 2048, 3001):
        stored = pack(features(7, p, 0, 0), storage)
        stored.pop("width", None)  # 8 bytes a shard
        assert sum(array.nbytes for array in stored.values()) == 7 * bytes_per_row(p, storage)


@pytest.mark.parametrize("storage", KINDS)
def test_packing_again_changes_nothing(storage: Storage) -> None:
    read = unpack(pack(features(20, 200, 3, 3), storage))[:]
    again = unpack(pack(read, storage))[:]
    np.testing.assert_allclose(again, read, rtol=1e-5)


@pytest.mark.parametrize("storage", KINDS)
def test_scores_come_from_mapped_shards_of_packed_features(storage, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("engine.attribution.scores.blocks.MAX_BLOCK_ROWS", 16)
    rows, g = features(60, 150, 4, 1), features(9, 150, 5, 0)
    paths = [tmp_path / f"{n}.safetensors" for n in range(2)]
    for path, part in zip(paths, (rows[:32], rows[32:]), strict=True):
        write_tensors(path, pack(part, storage), "x")
    shards = [unpack(read_tensors(path)) for path in paths]
    read = np.concatenate([shard[:] for shard in shards])
    packed, plain = (FactorScores([s], [g], np.ones(60, "f4")) for s in (shards, [read]))
    for mine, wanted in zip(top_k(packed, 7), top_k(plain, 7), strict=True):
        for name, array in vars(wanted).items():
            np.testing.assert_array_equal(getattr(mine, name), array)


def test_every_kind_is_smaller_than_the_one_before() -> None:
    sizes = [bytes_per_row(4096, storage) for storage in KINDS]
    assert sizes == [16384, 8320, 4224, 2560]
