"""Ids are text, as their source writes them, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.sources import load_source
from engine.store.errors import DataError
from engine.store.spec import DataSpec

TEXT = ["0017", "17", "1e3", "2020-01-01", "NA", "#3"]


def rows(ids: list[object]) -> list[dict[str, object]]:
    return [{"key": id_, "text": f"word {n}", "label": "ab"[n % 2]} for n, id_ in enumerate(ids)]


def as_csv(path: Path, ids: list[object]) -> None:
    pd.DataFrame(rows(ids)).to_csv(path, index=False)


def as_parquet(path: Path, ids: list[object]) -> None:
    pq.write_table(pa.Table.from_pylist(rows(ids)), path)


def as_jsonl(path: Path, ids: list[object]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows(ids)) + "\n", encoding="utf-8")


def as_json(path: Path, ids: list[object]) -> None:
    path.write_text(json.dumps(rows(ids)), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, list[object]], None]] = {
    "csv": as_csv,
    "parquet": as_parquet,
    "jsonl": as_jsonl,
    "json": as_json,
}


def ids_read(folder: Path, suffix: str, ids: list[object]) -> list[str]:
    WRITERS[suffix](folder / f"train.{suffix}", ids)
    WRITERS[suffix](folder / f"test.{suffix}", ["a test", "another"])
    source = load_source(DataSpec(source=str(folder), id="key"), folder)
    found: list[str] = source.train["id"][:]
    return found


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "ids",
    [TEXT, ["0001", "0002", "0003"], ["2020-01-01", "2021-02-03"], ["17.0", "18.0"], ["٣", "²"]],
    ids=lambda ids: ids[0],
)
def test_texts_stay_as_they_are(suffix: str, ids: list[object], tmp_path: Path) -> None:
    assert ids_read(tmp_path, suffix, ids) == ids


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize(
    "ids",
    [[17, 3, 10**15], [17.0, 3.0, 1e15]],
    ids=["whole", "floats"],
)
def test_whole_numbers_are_their_digits(suffix: str, ids: list[object], tmp_path: Path) -> None:
    assert ids_read(tmp_path, suffix, ids) == ["17", "3", "1000000000000000"]


def test_json_may_mix_texts_and_numbers(tmp_path: Path) -> None:
    assert ids_read(tmp_path, "jsonl", ["0017", 17, 10**18]) == ["0017", "17", str(10**18)]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_id_is_named(suffix: str, tmp_path: Path) -> None:
    for missing in (None, ""):
        with pytest.raises(DataError, match="Row 1 of the train split has no id"):
            ids_read(tmp_path, suffix, ["0017", missing, "0019"])


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_fractions_are_not_ids(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not an id"):
        ids_read(tmp_path, suffix, [0.5, 1.0])


@pytest.mark.parametrize("dtype", ["<U4", "S4", "int64", "float64"])
def test_arrays_of_ids(dtype: str, tmp_path: Path) -> None:
    path, pictures = tmp_path / "data.npz", np.zeros((2, 4, 4), np.uint8)
    split = {"input": pictures, "label": np.array([0, 1])}
    arrays = {f"{name}_{key}": value for name in ("train", "test") for key, value in split.items()}
    ids = {"train_id": np.array(["17", "18"]), "test_id": np.array(["27", "28"])}
    arrays |= {
        name: value.astype(float).astype(dtype) if dtype.endswith("64") else value.astype(dtype)
        for name, value in ids.items()
    }
    np.savez(path, **arrays)
    source = load_source(DataSpec(source=str(path), id="id"), tmp_path)
    assert source.train["id"][:] == ["17", "18"]
