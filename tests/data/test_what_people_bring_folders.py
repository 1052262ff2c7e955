"""Folders that people bring: which files are a split, which pictures are data, what is said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from engine.data.sources import Source, load_source
from engine.store.errors import DataError
from engine.store.spec import DataSpec

pytestmark = pytest.mark.input_case


def read(folder: Path, **spec: Any) -> Source:
    return load_source(DataSpec(source=str(folder), **spec), Path("/"))


def refused(folder: Path, message: str, **spec: Any) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(folder, **spec)
    assert "\n" not in str(error.value)


def table(path: Path, *rows: str, header: str = "text,label") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def texts(source: Source) -> list[str]:
    found: list[str] = source.train["input"][:]
    return found


PLAIN = ("a b,x", "c d,y")
OTHER = ("old e,x", "old f,y")


def parquet(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [row.split(",") for row in rows]
    pd.DataFrame(found, columns=["text", "label"]).to_parquet(path)


# --- which files are a split ----------------------------------------------------------------------


def exact(folder: Path) -> None:
    table(folder / "train.csv", *PLAIN)
    table(folder / "train-old.csv", *OTHER)
    table(folder / "train_annotations.csv", "1,2", header="n,m")
    table(folder / "train2.csv", *OTHER)


def shards(folder: Path) -> None:
    parquet(folder / "data" / "train-00001-of-00002.parquet", "c d,y")
    parquet(folder / "data" / "train-00000-of-00002.parquet", "a b,x")
    parquet(folder / "data" / "train-old.parquet", *OTHER)


def hub_shards(folder: Path) -> None:
    parquet(folder / "train-00000-of-00001-0a1b2c3d4e5f.parquet", *PLAIN)


def eleven_shards(folder: Path) -> None:
    for number in range(11):
        row = {0: "a b,x", 10: "c d,y"}.get(number, f"n {number},x")
        parquet(folder / f"train-{number}-of-11.parquet", row)


def exact_before_shards(folder: Path) -> None:
    table(folder / "train.csv", *PLAIN)
    parquet(folder / "train-00000-of-00001.parquet", *OTHER)


def parts(folder: Path) -> None:
    table(folder / "train" / "part-0.csv", "a b,x")
    table(folder / "train" / "part-1.csv", "c d,y")
    table(folder / "train" / ".part-2.csv", *OTHER)
    table(folder / "train" / "_backup.csv", *OTHER)
    table(folder / "train" / ".ipynb_checkpoints" / "part-0.csv", *OTHER)
    (folder / "train" / "_SUCCESS").write_text("")


def exact_inside(folder: Path) -> None:
    table(folder / "train" / "train.csv", *PLAIN)
    table(folder / "train" / "notes.csv", "1", header="n")


def columns_in_another_order(folder: Path) -> None:
    table(folder / "train" / "0.csv", "a b,x")
    table(folder / "train" / "1.csv", "y,c d", header="label,text")


def named_in_full(folder: Path) -> None:
    table(folder / "train.csv", *PLAIN)
    parquet(folder / "train.parquet", *OTHER)


def hive_of_splits(folder: Path) -> None:
    parquet(folder / "split=train" / "part-0.parquet", *PLAIN)
    parquet(folder / "split=test" / "part-0.parquet", *PLAIN)


def hive_of_labels(folder: Path) -> None:
    for name, row in (("x", "a b"), ("y", "c d")):
        path = folder / "train" / f"label={name}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        pd.DataFrame({"text": [row]}).to_parquet(path)


def hive_of_both(folder: Path) -> None:
    for split in ("train", "test"):
        for name, row in (("x", "a b"), ("y", "c d")):
            path = folder / f"label={name}" / f"split={split}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pd.DataFrame({"text": [row]}).to_parquet(path)


def saved_with_caches(folder: Path) -> None:
    for split in ("train", "test"):
        whole = datasets.Dataset.from_dict({"text": ["a b", "c d"], "label": ["x", "y"]})
        whole.save_to_disk(str(folder / split))
        loaded = datasets.load_from_disk(str(folder / split))
        loaded.map(lambda row: {"text": row["text"] + "!"})
        assert list((folder / split).glob("cache-*.arrow"))


def saved_as_dict(folder: Path) -> None:
    whole = datasets.Dataset.from_dict({"text": ["a b", "no", "c d"], "label": ["x", "x", "y"]})
    chosen = whole.select([0, 2])
    datasets.DatasetDict(train=chosen, test=chosen).save_to_disk(str(folder))


def saved_with_indices(folder: Path) -> None:
    """As old versions wrote a dataset of which rows were selected."""
    saved_as_dict(folder)
    for split in ("train", "test"):
        inner = folder / split
        indices = datasets.Dataset.from_dict({"indices": [2, 0]})
        indices.save_to_disk(str(inner / "i"))
        (inner / "i" / "data-00000-of-00001.arrow").rename(inner / "indices.arrow")
        whole = datasets.Dataset.from_dict({"text": ["c d", "no", "a b"], "label": ["y", "x", "x"]})
        whole.save_to_disk(str(inner / "w"))
        (inner / "w" / "data-00000-of-00001.arrow").replace(inner / "data-00000-of-00001.arrow")
        state = json.loads((inner / "state.json").read_text())
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
        (inner / "state.json").write_text(json.dumps(state))


def linked_file(folder: Path) -> None:
    table(folder / "elsewhere" / "rows.csv", *PLAIN)
    (folder / "train.csv").symlink_to(folder / "elsewhere" / "rows.csv")


CHOSEN: dict[str, tuple[Callable[[Path], None], list[str], dict[str, str]]] = {
    "exact name": (exact, ["train-old.csv, train2.csv, train_annotations.csv"], {}),
    "shards": (shards, ["train-old.parquet"], {}),
    "shards of the hub": (hub_shards, [], {}),
    "exact name before shards": (exact_before_shards, ["train-00000-of-00001.parquet"], {}),
    "parts in a folder": (parts, ["2 files of train are read"], {}),
    "exact name in a folder": (exact_inside, ["notes.csv"], {}),
    "columns in another order": (columns_in_another_order, ["2 files of train"], {}),
    "named in full": (named_in_full, [], {"train": "train.csv"}),
    "partitions by split": (hive_of_splits, [], {}),
    "partitions by label": (hive_of_labels, ["Columns of folder names in train: label"], {}),
    "partitions by both": (hive_of_both, [": label"], {}),
    "save_to_disk with caches": (saved_with_caches, [], {}),
    "save_to_disk of splits": (saved_as_dict, [], {}),
    "save_to_disk with indices": (saved_with_indices, [], {}),
    "linked file": (linked_file, [], {}),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_rule_chooses_the_files_of_a_split(name: str, tmp_path: Path) -> None:
    write, notes, spec = CHOSEN[name]
    write(tmp_path)
    if not any(tmp_path.glob("**/*test*")):
        table(tmp_path / "test.csv", *PLAIN)
    source = read(tmp_path, **spec)
    assert texts(source) == ["a b", "c d"]
    assert [source.classes[label] for label in source.train["label"]] == ["x", "y"]
    said = " ".join((*source.notes, *source.warnings))
    assert all(note in said for note in notes), said
    assert bool(said) == bool(notes), said


def test_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    eleven_shards(tmp_path)
    table(tmp_path / "test.csv", "a b,x")
    assert texts(read(tmp_path)) == ["a b", *(f"n {i}" for i in range(1, 10)), "c d"]


def missing_shard(folder: Path) -> None:
    parquet(folder / "train-00000-of-00003.parquet", "a b,x")
    parquet(folder / "train-00002-of-00003.parquet", "a b,x")


def other_columns(folder: Path) -> None:
    table(folder / "train" / "a.csv", *PLAIN)
    table(folder / "train" / "b.csv", "1,2", header="n,m")


def two_formats_inside(folder: Path) -> None:
    table(folder / "train" / "a.csv", *PLAIN)
    parquet(folder / "train" / "b.parquet", *OTHER)


def only_similar(folder: Path) -> None:
    table(folder / "train-old.csv", *PLAIN)


def plain_and_zipped(folder: Path) -> None:
    table(folder / "train.csv", *PLAIN)
    (folder / "train.csv.gz").write_bytes(b"")


def other_classes(folder: Path) -> None:
    for number, names in enumerate((["x", "y"], ["y", "x"])):
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        rows = datasets.Dataset.from_dict({"text": ["a"], "label": [0]}, features=features)
        rows.to_parquet(str(folder / f"train-{number}-of-2.parquet"))


def lost_data_file(folder: Path) -> None:
    saved_as_dict(folder)
    (folder / "train" / "data-00000-of-00001.arrow").unlink()


AMBIGUOUS: dict[str, tuple[Callable[[Path], None], str]] = {
    "two formats": (named_in_full, r"2 sources of the split 'train'.*`train = \"train.csv\"`"),
    "plain and zipped": (plain_and_zipped, r"train.csv, train.csv.gz"),
    "two formats in a folder": (two_formats_inside, "2 sources .*train/a.csv, train/b.parquet"),
    "a shard is missing": (missing_shard, "2 of the 3 files .* number 1 is missing"),
    "other columns": (other_columns, "a.csv has the columns text, label, and .*b.csv has n, m"),
    "other classes": (other_classes, "number their classes differently"),
    "only a similar name": (only_similar, "no split 'train'; it has test.csv, train-old.csv"),
    "a lost file of save_to_disk": (lost_data_file, "names .*arrow, which does not exist"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_ambiguous_is_refused(name: str, tmp_path: Path) -> None:
    write, message = AMBIGUOUS[name]
    write(tmp_path)
    if name != "a lost file of save_to_disk":
        table(tmp_path / "test.csv", *PLAIN)
    refused(tmp_path, message)


# --- pictures in class folders --------------------------------------------------------------------


def picture(path: Path, shade: int = 0, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(file, kind)


def class_folders(folder: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            picture(folder / split / name / "0.png")


def hidden(folder: Path) -> None:
    train = folder / "train"
    for name in (
        ".ipynb_checkpoints/0-checkpoint.png",
        "cat/.ipynb_checkpoints/0-checkpoint.png",
        "cat/.hidden.png",
        "cat/._0.png",
        "cat/__MACOSX/._0.png",
        "cat/deeper/.git/0.png",
        "__MACOSX/cat/0.png",
        ".cat/0.png",
    ):
        picture(train / name)
    for name in ("cat/Thumbs.db", "cat/.DS_Store", ".DS_Store", "cat/desktop.ini"):
        (train / name).write_bytes(b"x")


def suffixes(folder: Path) -> None:
    for name, kind in (
        ("1.jfif", "JPEG"),
        ("2.jpe", "JPEG"),
        ("3.WEBP", "WEBP"),
        ("4", "PNG"),
        ("5.data", "GIF"),
        ("6.PNG", "PNG"),
    ):
        picture(folder / "train" / "cat" / name, kind=kind)


def left_out(folder: Path) -> None:
    (folder / "train" / "cat" / "a.heic").write_bytes(b"\0\0\0 ftypheic")
    (folder / "train" / "dog" / "b.HEIC").write_bytes(b"\0\0\0 ftypheic")
    (folder / "train" / "dog" / "notes.txt").write_text("P1 is no picture")
    (folder / "train" / "dog" / "README").write_text("x")
    picture(folder / "train" / "loose.png")
    (folder / "train" / "cat" / "gone.png").symlink_to("nowhere.png")
    (folder / "train" / "cow").mkdir()


def linked_subfolder(folder: Path) -> None:
    picture(folder / "more" / "1.png")
    (folder / "train" / "cat" / "more").symlink_to(folder / "more")


def linked_class(folder: Path) -> None:
    picture(folder / "eels" / "1.png")
    (folder / "train" / "eel").symlink_to("../eels")


def linked_picture(folder: Path) -> None:
    picture(folder / "more" / "1.png")
    (folder / "train" / "cat" / "1.png").symlink_to(folder / "more" / "1.png")


def linked_twice(folder: Path) -> None:
    picture(folder / "train" / "cat" / "a" / "1.png")
    (folder / "train" / "cat" / "b").symlink_to("a")


def annotations(folder: Path) -> None:
    (folder / "train" / "_annotations.coco.json").write_text('{"images": []}')
    table(folder / "train" / "labels.csv", "0.png,x", header="file,label")
    table(folder / "train_annotations.csv", "0.png,x", header="file,label")


def pattern_names(folder: Path) -> None:
    picture(folder / "train" / "c[a]t*" / "1?#%.png")


Pictures = dict[str, tuple[Callable[[Path], None], list[str], list[str]]]
PICTURES: Pictures = {
    "hidden files": (hidden, [], []),
    "suffixes": (
        suffixes,
        ["cat/1.jfif", "cat/2.jpe", "cat/3.WEBP", "cat/4", "cat/5.data", "cat/6.PNG"],
        [],
    ),
    "left out": (
        left_out,
        [],
        [
            "2 .heic files, 1 .txt file, 1 broken link, 1 file without a suffix, "
            "1 picture outside the class folders.",
            "train/cow holds no pictures",
        ],
    ),
    "linked subfolder": (linked_subfolder, ["cat/more/1.png"], []),
    "linked class": (linked_class, ["eel/1.png"], ["test split has no example of eel"]),
    "linked picture": (linked_picture, ["cat/1.png"], []),
    "linked twice": (linked_twice, ["cat/a/1.png"], ["train/cat/b is the same folder as cat/a"]),
    "annotations": (annotations, [], ["not labels.csv", "train_annotations.csv"]),
    "pattern in names": (pattern_names, ["c[a]t*/1?#%.png"], ["no example of c[a]t*"]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_of_class_folders(name: str, tmp_path: Path) -> None:
    write, more, notes = PICTURES[name]
    class_folders(tmp_path)
    write(tmp_path)
    source = read(tmp_path)
    expected = sorted(
        [*more, "cat/0.png", "dog/0.png"], key=lambda file: (file.split("/")[0], file)
    )
    train = tmp_path / "train"
    found = [
        (str(Path(row["input"]["path"]).relative_to(train)), source.classes[row["label"]])
        for row in source.train
    ]
    assert found == [(file, file.split("/")[0]) for file in expected]
    said = " ".join((*source.notes, *source.warnings))
    assert all(note in said for note in notes), said
    assert bool(said) == bool(notes), said


LOOPS: dict[str, tuple[str, str, str]] = {
    "to the split": ("cat/up", "..", "cat/up is a link to a folder around it"),
    "to itself": ("cat/self", ".", "cat/self is a link to a folder around it"),
    "above the source": ("cat/top", "../../..", "cat/top is a link to a folder around it"),
    "two classes": ("kitty", "cat", "kitty and .*train/cat are the same folder"),
    "part of another class": ("dog/cats", "../cat", "dog/cats and .*train/cat are the same folder"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_links_without_an_end_and_into_two_classes_are_refused(name: str, tmp_path: Path) -> None:
    place, target, message = LOOPS[name]
    class_folders(tmp_path)
    (tmp_path / "train" / place).symlink_to(target)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cafe\u0301", "caf\u00e9"), r"'cafe\\u0301'.* and .*look alike"),
        (("Pos", "pos"), "'Pos' and 'pos' look alike"),
    ],
    ids=["accents", "capitals"],
)
def test_class_folders_of_one_look_are_named(
    names: tuple[str, str], message: str, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        for name in names:
            picture(tmp_path / split / name / "0.png")
    source = read(tmp_path)
    assert source.classes == sorted(names)
    assert re.search(message, " ".join((*source.notes, *source.warnings)))


def test_a_table_beside_one_folder_of_pictures(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = []
        for number, name in enumerate("xyx"):
            picture(tmp_path / split / "images" / f"{number}.png")
            rows.append(f"images/{number}.png,{name},a b")
        table(tmp_path / split / "labels.csv", *rows, header="file_name,label,text")
        (tmp_path / split / "dataset_info.json").write_text("{}")
    source = read(tmp_path)
    assert [source.classes[label] for label in source.train["label"]] == ["x", "y", "x"]
    first = tmp_path / "train" / "images" / "0.png"
    assert source.train[0]["input"]["path"] == str(first)
    assert "not 'text'" in " ".join((*source.notes, *source.warnings))


def test_class_folders_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    for folder in ("[1]*? #%", "1x #%"):
        class_folders(tmp_path / folder)
    picture(tmp_path / "1x #%" / "train" / "eel" / "0.png")
    source = read(tmp_path / "[1]*? #%")
    assert source.classes == ["cat", "dog"]
    found = {row["input"]["path"] for row in source.train}
    assert found == {str(tmp_path / "[1]*? #%" / "train" / n / "0.png") for n in ("cat", "dog")}


def test_a_table_of_pictures_without_suffixes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        picture(tmp_path / "pictures" / f"{split}#1", kind="JPEG")
        table(tmp_path / f"{split}.csv", f"pictures/{split}#1,x", f"pictures/{split}#1,y",
              header="image,label")  # fmt: skip
    for spec in ({}, {"input": "image"}):
        source = read(tmp_path, **spec)
        assert source.train[0]["input"]["path"] == str(tmp_path / "pictures" / "train#1")


def test_names_of_pictures_that_are_ids_too(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [f"{split}{number}.png,{name}" for number, name in enumerate("xy")]
        for row in rows:
            picture(tmp_path / row.split(",")[0])
        table(tmp_path / f"{split}.csv", *rows, header="file,label")
    source = read(tmp_path, id="file")
    assert source.train["id"][:] == ["train0.png", "train1.png"]
    assert source.train[1]["input"]["path"] == str(tmp_path / "train1.png")


# --- which column is the input --------------------------------------------------------------------

INPUTS: dict[str, tuple[str, list[str], str, str]] = {
    "text and others": ("text,city,label", ["a b,Oslo,x", "c d,Rome,y"], "a b", "'city' holds"),
    "sentence": ("label,sentence,source", ["x,a b,web", "y,c d,web"], "a b", "'sentence', by its"),
    "only one column": ("name,label", ["Ann,x", "Bob,y"], "Ann", ""),
    "long texts of another name": ("n,q,label", ["1,a b c d,x", "2,e f g h,y"], "a b c d", ""),
    "text of single words": ("text,n,label", ["a,1,x", "b,2,y"], "a", ""),
    "upper-case names": ("TEXT,City,Label", ["a b,Oslo,x", "c d,Rome,y"], "a b", "'TEXT', by its"),
    "two labels": ("text,target,label", ["a b,1,x", "c d,2,y"], "a b", "'label', not 'target'"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_the_input_is_chosen_and_said(name: str, tmp_path: Path) -> None:
    header, rows, first, note = INPUTS[name]
    for split in ("train", "test"):
        table(tmp_path / f"{split}.csv", *rows, header=header)
    source = read(tmp_path)
    assert source.train[0]["input"] == first
    assert source.classes == ["x", "y"]
    assert note in " ".join((*source.notes, *source.warnings))
    assert bool(note) == bool(source.notes)
    assert "(input: " in source.description


ASKED: dict[str, tuple[str, list[str], str]] = {
    "a city": (
        "age,income,city,label",
        ["30,100,New York,x", "31,200,Oslo,y"],
        "'city' is the only one of texts, but looks like a property beside 'age', 'income'",
    ),
    "repeated texts": (
        "n,plan,label",
        ["1,the small free plan,x", "2,the small free plan,y"],
        "'plan' is the only one",
    ),
    "two texts": ("question,answer,label", ["a b c,d e f,x", "g,h,y"], "2 columns fit"),
    "two usual names": ("text,review,label", ["a b,c d,x", "e,f,y"], "2 columns fit"),
    "numbers": ("age,income,label", ["1,2,x", "3,4,y"], "No column fits as input"),
    "labels twice": ("text,label,Label", ["a b,x,y", "c d,y,x"], "2 columns fit .* as label"),
}


@pytest.mark.parametrize("name", ASKED)
def test_where_the_input_is_unclear_the_user_is_asked(name: str, tmp_path: Path) -> None:
    header, rows, message = ASKED[name]
    for split in ("train", "test"):
        table(tmp_path / f"{split}.csv", *rows, header=header)
    refused(tmp_path, message)


def test_a_test_split_that_is_the_training_split(tmp_path: Path) -> None:
    class_folders(tmp_path)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(DataError, match=r"train and .*test are the same"):
        read(tmp_path)
    with pytest.raises(ValidationError, match="both name 'train'"):
        read(tmp_path, test="train")
