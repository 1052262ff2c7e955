"""A picture keeps the name of its file, whatever its source; `id = "file"` makes it the id."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine.build.encoding import encode_split
from engine.data.sources import Source, load_source
from engine.store.errors import DataError
from engine.store.spec import DataSpec
from engine.tasks import load_task

NAMES = [
    "a b.png",
    "=1+1.png",
    "@x.png",
    "-y.png",
    "#3.png",
    "día é.png",
    "猫.png",
    "n" * 200 + ".png",
]


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


PNG = picture()


def load(root: Path, **data: Any) -> Source:
    return load_source(DataSpec(**{"source": "data", **data}), root)


def class_folders(root: Path) -> list[list[str]]:
    for split in ("train", "test"):
        for label in ("cat", "dog/small"):
            folder = root / "data" / split / label
            folder.mkdir(parents=True)
            for name in NAMES:
                (folder / name).write_bytes(PNG)
    return [
        [f"{split}/{label}/{name}" for label in ("cat", "dog/small") for name in sorted(NAMES)]
        for split in ("train", "test")
    ]


def linked_class_folders(root: Path) -> list[list[str]]:
    class_folders(root / "elsewhere")
    shutil.move(root / "elsewhere" / "data", root / "kept")
    (root / "data").mkdir()
    for split in ("train", "test"):
        (root / "data" / split).symlink_to(root / "kept" / split)
    return [
        [f"{split}/{label}/{name}" for label in ("cat", "dog/small") for name in sorted(NAMES)]
        for split in ("train", "test")
    ]


def csv_beside(root: Path) -> list[list[str]]:
    """Tables that name files: below them, in a folder above, and from the root."""
    (root / "data" / "deep").mkdir(parents=True)
    (root / "data" / "deep" / "1.png").write_bytes(PNG)
    (root / "outside.png").write_bytes(PNG)
    places = ["deep/1.png", "deep/../deep/1.png", str(root / "outside.png")]
    table = pd.DataFrame({"photo": places, "label": ["a", "b", "a"], "age": [1, 2, 3]})
    for split in ("train", "test"):
        table.to_csv(root / "data" / f"{split}.csv", index=False)
    return [["deep/1.png", "deep/1.png", str(root / "outside.png")]] * 2


def one_csv(root: Path) -> list[list[str]]:
    (root / "data").mkdir()
    (root / "data" / "1.png").write_bytes(PNG)
    rows = {
        "photo": ["1.png"] * 4,
        "label": ["a", "b"] * 2,
        "split": ["train", "train"] + ["test"] * 2,
    }
    pd.DataFrame(rows).to_csv(root / "data" / "all.csv", index=False)
    return [["1.png"] * 2] * 2


def table_with(path: str | None, **columns: list[Any]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for split in ("train", "test"):
            rows = {"image": [{"bytes": PNG, "path": path}] * 2, "label": ["a", "b"], **columns}
            folder = root / "data"
            folder.mkdir(exist_ok=True)
            datasets.Dataset.from_dict(rows).to_parquet(str(folder / f"{split}.parquet"))

    return write


def written(path: str | None, expected: str | None, **columns: list[Any]) -> Any:
    def make(root: Path) -> list[list[str | None]]:
        table_with(path, **columns)(root)
        return [[expected] * 2] * 2

    return make


def npz(root: Path) -> list[list[str | None]]:
    pictures, labels = np.zeros((2, 3, 3), np.uint8), np.array([0, 1])
    np.savez(root / "data.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    return [[None] * 2] * 2


HASH = "0123456789abcdef" * 4
SOURCES: dict[str, Any] = {
    "class folders": class_folders,
    "linked splits": linked_class_folders,
    "csv of files": csv_beside,
    "one csv": one_csv,
    "parquet with path": written("cat/1.png", "cat/1.png"),
    "parquet without path": written(None, None),
    "parquet from the hub": written("hf://datasets/a/b@main/train/1.png", "train/1.png"),
    "parquet from an archive": written("zip://train/1.png::/tmp/x.zip", "train/1.png"),
    "parquet from the cache": written(f"/c/downloads/extracted/{HASH}/train/1.png", "train/1.png"),
    "parquet with a path on disk": written("/elsewhere/1.png", "/elsewhere/1.png"),
    "npz": npz,
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", SOURCES)
def test_every_table_has_the_files(case: str, tmp_path: Path) -> None:
    expected = SOURCES[case](tmp_path)
    name = {"one csv": "data/all.csv", "npz": "data.npz"}.get(case, "data")
    source = load(tmp_path, source=name)
    for split, rows in zip(expected, (source.train, source.test), strict=True):
        assert rows["file"] == split
    shards = encode_split(
        source.train,
        load_task("image-classification"),
        load_task("image-classification").options(),
        {"shape": [1, 3, 3], "cell": 3},
    )
    assert [shard.columns["file"] for shard in shards] == [expected[0]]


def test_a_relative_study_folder_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = class_folders(tmp_path)
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path)
    source = load(Path("study"), source="../data")
    assert source.train["file"] == expected[0]


@pytest.mark.input_case
@pytest.mark.parametrize("case", ["class folders", "csv of files", "parquet with path"])
def test_files_are_ids_where_asked(case: str, tmp_path: Path) -> None:
    expected = SOURCES[case](tmp_path)
    if case != "class folders":  # the same file in both splits cannot be an id
        with pytest.raises(DataError, match=r"occurs twice"):
            load(tmp_path, id="file")
        return
    source = load(tmp_path, id="file")
    assert source.train["id"] == source.train["file"] == expected[0]
    assert source.test["id"] == expected[1]


@pytest.mark.input_case
@pytest.mark.parametrize("input_", ["file", "image_path"])
def test_a_column_of_files_can_be_input_and_id(input_: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        names = [f"{split}-{i}.png" for i in range(2)]
        for name in names:
            (tmp_path / "data" / name).write_bytes(PNG)
        table = pd.DataFrame({input_: names, "label": ["a", "b"], "age": [1, 2]})
        table.to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    source = load(tmp_path, id=input_)
    assert source.train["id"] == source.train["file"] == ["train-0.png", "train-1.png"]
    assert source.train.column_names == ["input", "label", "id", "file", "age"]


@pytest.mark.input_case
def test_pictures_without_files_have_no_files_as_ids(tmp_path: Path) -> None:
    npz(tmp_path)
    with pytest.raises(DataError, match=r"no id \(column 'file'\)"):
        load(tmp_path, source="data.npz", id="file")


@pytest.mark.input_case
def test_a_column_file_of_the_source_is_kept(tmp_path: Path) -> None:
    """It gives way where the pictures have files of their own, and is the file where not."""
    theirs = ["one", "two"]
    table_with("cat/1.png", file=theirs, original_file=[1, 2])(tmp_path)
    source = load(tmp_path)
    assert source.train["file"] == ["cat/1.png"] * 2
    assert source.train["original_original_file"] == theirs
    assert source.train["original_file"] == [1, 2]
    table_with(None, file=theirs)(tmp_path)
    assert load(tmp_path).train["file"] == theirs
    for split in ("train", "test"):
        table_with("cat/1.png", file=[f"{split}{i}" for i in range(2)])(tmp_path)
    table = pd.DataFrame({"text": ["a", "b"], "file": theirs, "label": ["x", "y"]})
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.parquet").unlink()
        table.assign(file=[f"{split}/{name}" for name in theirs]).to_csv(
            tmp_path / "data" / f"{split}.csv", index=False
        )
    texts = load(tmp_path, id="file")
    assert texts.train["id"] == ["train/one", "train/two"]
    assert "file" not in texts.train.column_names


@pytest.mark.input_case
def test_texts_have_no_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        table = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
        table.to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    assert load(tmp_path).train.column_names == ["input", "label", "id"]
