"""One explanation reads each table and each folder once, and a replaced file is seen at once."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine import DataloupeError, Study, store
from engine.store import layout
from engine.store.cache import clear_caches
from engine.study.names import read_names


@pytest.fixture
def settled(small_study: Study, tmp_path: Path) -> Path:
    """A copy of the small study that nobody has changed for a minute, and of which nothing is
    kept in memory."""
    root = Path(shutil.copytree(small_study.root, tmp_path / "study"))
    layout.uploads_folder(root).mkdir(exist_ok=True)
    then = time.time() - 60
    for path in [root, *root.rglob("*")]:
        os.utime(path, (then, then))
    clear_caches()
    return root


@pytest.mark.parametrize("test", [17, "test-17", "#17", "17"])
def test_an_explanation_reads_each_table_and_lists_each_folder_once(
    settled: Path, test: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: Counter[str] = Counter()
    columns: dict[str, Any] = {}
    folders: Counter[str] = Counter()
    real_read, real_scandir, real_listdir = pq.read_table, os.scandir, os.listdir

    def read(path: Path, **options: Any) -> Any:
        name = str(Path(path).relative_to(settled))
        tables[name] += 1
        columns[name] = options.get("columns")
        return real_read(path, **options)

    def scandir(path: Any = ".") -> Any:
        folders[str(path)] += 1
        return real_scandir(path)

    def listdir(path: Any = ".") -> Any:
        folders[str(path)] += 1
        return real_listdir(path)

    monkeypatch.setattr(pq, "read_table", read)
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", listdir)
    assert Study.open(settled).explain(test).id == "test-17"
    assert set(tables) == {
        "data/test/00000.parquet",
        "data/train/00000.parquet",
        "algorithms/mlp/predictions/test.parquet",
    }
    assert max(tables.values()) == 1
    assert columns["data/train/00000.parquet"] == ["id", "label", "file"]
    assert columns["data/test/00000.parquet"] == ["id", "label", "file"]
    inside = {path: count for path, count in folders.items() if str(settled) in path}
    assert inside
    assert max(inside.values()) == 1, inside


def test_a_reader_that_lives_long_sees_what_was_replaced(settled: Path) -> None:
    study = Study.open(settled)
    before = study.explain("test-0")
    assert study.dataset.n_train == 300
    names = read_names(study, "test")
    path = layout.table_file(study.root, "test", 0)
    table = store.read_table(path)
    ids = ["first", *table["id"].to_pylist()[1:]]
    changed = table.set_column(table.column_names.index("id"), "id", [ids])
    store.write_table(path, changed, "other")
    assert study.explain("first").row == before.row
    assert read_names(study, "test")["label"].equals(names["label"])
    dataset = store.read_json(layout.dataset_file(study.root))
    store.write_json(layout.dataset_file(study.root), {**dataset, "n_train": 299}, "other")
    assert study.dataset.n_train == 299
    assert study.uploads == {}
    methods = layout.search_file(study.root, "mlp", "trak")
    methods.rename(methods.with_suffix(".away"))
    with pytest.raises(DataloupeError, match="no scores by method 'trak'"):
        study.explain(0, method="trak")
