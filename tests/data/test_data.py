"""Reading data: every format gives the same dataset; bad input is refused in one line."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.build.encoding import dataset_fingerprint, encode_split
from engine.data import asset
from engine.data.sources import Source, load_source
from engine.store.errors import DataError, UntrustedCode
from engine.store.spec import DataSpec, load_spec
from engine.store.trust import Code, trust
from engine.tasks import load_task

CLASSES = ["cat", "dog", "eel"]
Split = tuple[np.ndarray, np.ndarray]


def picture_bytes(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> dict[str, Split]:
    """Random 6 × 5 colour pictures, sorted by class as a folder of classes is."""
    rng = np.random.default_rng(7)
    return {
        split: (rng.integers(0, 256, (n, 6, 5, 3), np.uint8), np.sort(np.arange(n) % 3))
        for split, n in (("train", 7), ("test", 4))
    }


def fingerprint_of(source: Source, task: str = "image-classification", **options: Any) -> str:
    found = load_task(task)
    checked = found.options.model_validate(options)
    encoding = found.plan_encoding(source.train, checked, source.classes)
    return dataset_fingerprint(
        {
            split: ((s.arrays, s.ids) for s in encode_split(rows, found, checked, encoding, 3))
            for split, rows in (("train", source.train), ("test", source.test))
        },
        source.classes,
        encoding,
    )


def read(source: str, base: Path, **spec: Any) -> Source:
    return load_source(DataSpec(source=source, **spec), base)


# --- each format writes the same pictures in its own way ------------------------------------------


def as_dataset(split: Split) -> datasets.Dataset:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    rows = {
        "image": [{"bytes": picture_bytes(p), "path": None} for p in split[0]],
        "label": split[1].tolist(),
    }
    return datasets.Dataset.from_dict(rows, features=features)


def write_parquet(folder: Path, pictures: dict[str, Split]) -> str:
    for split, content in pictures.items():
        as_dataset(content).to_parquet(folder / f"{split}.parquet")
    return str(folder)


def write_parquet_shards(folder: Path, pictures: dict[str, Split]) -> str:
    (folder / "data").mkdir()
    for split, content in pictures.items():
        whole = as_dataset(content)
        for i, rows in enumerate((range(2), range(2, len(whole)))):
            whole.select(rows).to_parquet(folder / "data" / f"{split}-0000{i}-of-00002.parquet")
    return str(folder)


def write_plain_parquet(folder: Path, pictures: dict[str, Split]) -> str:
    """No features in the schema: bytes and names of classes, both splits in one file."""
    rows = [
        {"picture": picture_bytes(p), "label": CLASSES[label], "split": split}
        for split, content in pictures.items()
        for p, label in zip(*content, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "all.parquet")
    return str(folder / "all.parquet")


def write_arrow(folder: Path, pictures: dict[str, Split]) -> str:
    splits = {split: as_dataset(content) for split, content in pictures.items()}
    datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def write_image_folder(folder: Path, pictures: dict[str, Split]) -> str:
    for split, content in pictures.items():
        for i, (pixels, label) in enumerate(zip(*content, strict=True)):
            path = folder / split / CLASSES[label] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture_bytes(pixels))
    (folder / "train" / "cat" / "notes.txt").write_text("no picture")
    (folder / "train" / ".hidden").mkdir()
    return str(folder)


def write_files(folder: Path, pictures: dict[str, Split]) -> dict[str, list[dict[str, Any]]]:
    (folder / "pictures").mkdir()
    found: dict[str, list[dict[str, Any]]] = {}
    for split, content in pictures.items():
        for i, (pixels, label) in enumerate(zip(*content, strict=True)):
            name = f"pictures/{split}{i}.png"
            (folder / name).write_bytes(picture_bytes(pixels))
            found.setdefault(split, []).append({"file": name, "label": CLASSES[label], "n": i})
    return found


def write_csv(folder: Path, pictures: dict[str, Split]) -> str:
    for split, rows in write_files(folder, pictures).items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(folder)


def write_jsonl(folder: Path, pictures: dict[str, Split]) -> str:
    for split, rows in write_files(folder, pictures).items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def write_npz(folder: Path, pictures: dict[str, Split]) -> str:
    arrays = {f"{s}_input": pictures[s][0] for s in pictures}
    labels = {f"{s}_label": np.array(CLASSES)[pictures[s][1]] for s in pictures}
    np.savez(folder / "pictures.npz", **arrays, **labels)
    return str(folder / "pictures.npz")


def write_float_npz(folder: Path, pictures: dict[str, Split]) -> str:
    """Channels first, divided by 255, labels as a column, the names of Keras."""
    arrays = {
        f"x_{s}": pictures[s][0].transpose(0, 3, 1, 2).astype(np.float32) / 255 for s in pictures
    }
    labels = {f"y_{s}": np.array(CLASSES)[pictures[s][1]][:, None] for s in pictures}
    np.savez_compressed(folder / "pictures.npz", **arrays, **labels)
    return str(folder / "pictures.npz")


WRITERS = [
    write_parquet_shards,
    write_plain_parquet,
    write_arrow,
    write_image_folder,
    write_csv,
    write_jsonl,
    write_npz,
    write_float_npz,
]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])
def test_every_format_gives_the_same_dataset(
    write: Callable[[Path, dict[str, Split]], str], pictures: dict[str, Split], tmp_path: Path
) -> None:
    (tmp_path / "reference").mkdir()
    (tmp_path / "other").mkdir()
    reference = read(write_parquet(tmp_path / "reference", pictures), tmp_path)
    source = read(write(tmp_path / "other", pictures), tmp_path)
    assert source.classes == CLASSES
    assert source.train.column_names[:3] == ["input", "label", "id"]
    assert source.train["label"][:] == pictures["train"][1].tolist()
    assert fingerprint_of(source) == fingerprint_of(reference)


def test_encoded_pixels_are_the_pictures(pictures: dict[str, Split], tmp_path: Path) -> None:
    source = read(write_parquet(tmp_path, pictures), tmp_path)
    task = load_task("image-classification")
    options = task.options()
    encoding = task.plan_encoding(source.train, options, source.classes)
    (shard,) = encode_split(source.train, task, options, encoding)
    np.testing.assert_array_equal(shard.arrays["input"], pictures["train"][0].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(shard.arrays["label"], pictures["train"][1])
    assert shard.ids == [f"train-{i}" for i in range(7)]
    pixels = pictures["train"][0] / 255
    np.testing.assert_allclose(encoding["mean"], pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(encoding["std"], pixels.std((0, 1, 2)), atol=1e-6)


def test_encoding_resumes_at_the_missing_shard(pictures: dict[str, Split], tmp_path: Path) -> None:
    source = read(write_csv(tmp_path, pictures), tmp_path)
    task = load_task("image-classification")
    options = task.options()
    encoding = task.plan_encoding(source.train, options, source.classes)
    whole = list(encode_split(source.train, task, options, encoding, rows_per_shard=3))
    rest = list(encode_split(source.train, task, options, encoding, rows_per_shard=3, first=3))
    assert [shard.start for shard in whole] == [0, 3, 6]
    assert [shard.start for shard in rest] == [3, 6]
    assert rest[0].ids == whole[1].ids
    np.testing.assert_array_equal(rest[0].arrays["input"], whole[1].arrays["input"])
    assert whole[1].columns["n"] == [3, 4, 5]


def test_functions_run_only_where_they_are_trusted(
    pictures: dict[str, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path, pictures)
    (tmp_path / "their_data.py").write_text(
        "import datasets\n"
        f"def pets(): return datasets.DatasetDict({{s: datasets.Dataset.from_parquet("
        f"'{tmp_path}/' + s + '.parquet', cache_dir='{tmp_path}/cache')"
        " for s in ('train', 'test')})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = DataSpec(source="python:their_data:pets")
    with pytest.raises(UntrustedCode, match="dataloupe trust"):
        load_source(spec, tmp_path)
    assert "their_data" not in sys.modules
    trust(tmp_path, [Code.of(spec.source)])
    source = load_source(spec, tmp_path)
    assert fingerprint_of(source) == fingerprint_of(read(str(tmp_path), tmp_path))
    for name, why in (("their_data:cats", "cats"), ("nowhere:pets", "nowhere"), ("x", "Write it")):
        trust(tmp_path, [Code.of(f"python:{name}")])
        with pytest.raises(DataError, match=why):
            load_source(DataSpec(source=f"python:{name}"), tmp_path)


def test_only_hub_names_are_looked_up_on_the_hub(
    pictures: dict[str, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []

    def load_dataset(*names: object) -> datasets.DatasetDict:
        looked_up.append(names)
        return datasets.DatasetDict({s: as_dataset(content) for s, content in pictures.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = read("owner/pets", tmp_path, config="small")
    assert looked_up == [("owner/pets", "small")]
    assert fingerprint_of(source) == fingerprint_of(
        read(write_parquet(tmp_path, pictures), tmp_path)
    )
    (tmp_path / "here").mkdir()
    for path in ("/nowhere/at/all", "nowhere", "here/photos", "my/photos.csv", "../owner/pets"):
        with pytest.raises(DataError, match="does not exist"):
            read(path, tmp_path)
    assert len(looked_up) == 1


def test_an_unreachable_hub_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*names: object) -> None:
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"hub could not give it: no route to host$"):
        read("owner/pets", tmp_path)


def test_nothing_is_left_behind_and_nothing_global_is_set(
    pictures: dict[str, Split], tmp_path: Path
) -> None:
    from datasets.utils import are_progress_bars_disabled

    were_disabled = are_progress_bars_disabled()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "data").mkdir()
    spec = DataSpec(source=write_csv(tmp_path / "data", pictures))
    before = sorted(tmp_path.rglob("*"))
    source = load_source(spec, tmp_path, scratch=scratch)
    assert sorted(tmp_path.rglob("*")) == before
    assert are_progress_bars_disabled() == were_disabled
    assert len(fingerprint_of(source)) == 16  # readable although its mapped files have no name


# --- columns, labels, ids -------------------------------------------------------------------------


def write_tables(
    folder: Path, train: dict[str, list[Any]], test: dict[str, list[Any]] | None = None
) -> str:
    pq.write_table(pa.table(train), folder / "train.parquet")
    pq.write_table(pa.table(train if test is None else test), folder / "test.parquet")
    return str(folder)


def texts(n: int, **columns: list[Any]) -> dict[str, list[Any]]:
    return {"text": [f"word {i}" for i in range(n)], **columns}


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 9, 0], ["0", "9", "10"]),
        ([1.0, 0.0, 1.0], ["0", "1"]),
        ([True, False, True], ["false", "true"]),
    ],
)
def test_class_names_come_from_labels(
    values: list[Any], classes: list[str], tmp_path: Path
) -> None:
    source = read(write_tables(tmp_path, texts(3, label=values)), tmp_path)
    assert source.classes == classes
    shown = {"True": "true", "False": "false"}
    found = [source.classes[label] for label in source.train["label"]]
    assert found == [
        shown.get(str(v), f"{v:g}" if isinstance(v, float) else str(v)) for v in values
    ]


def test_splits_that_order_their_classes_differently_agree(tmp_path: Path) -> None:
    for split, names in (("train", ["a", "b"]), ("test", ["b", "a"])):
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        rows = datasets.Dataset.from_dict(texts(2, label=["a", "b"]), features=features)
        rows.to_parquet(tmp_path / f"{split}.parquet")
    source = read(str(tmp_path), tmp_path)
    assert source.classes == ["a", "b"]
    assert source.test["label"][:] == [0, 1]


def test_csv_keeps_words_that_pandas_takes_for_missing(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\nhello,NA\nworld,None\n")
    assert read(str(tmp_path), tmp_path).classes == ["NA", "None"]


def test_limits_ids_and_other_columns(tmp_path: Path) -> None:
    rows = texts(4, label=["a", "b", "a", "b"], key=[7, 8, 9, 10], id=["w", "x", "y", "z"])
    write_tables(tmp_path, rows, {**rows, "key": [1, 2, 3, 4]})
    source = read(str(tmp_path), tmp_path, id="key", train_limit=3, test_limit=2)
    assert (len(source.train), len(source.test)) == (3, 2)
    assert source.train.column_names == ["input", "label", "id", "original_id", "source_row"]
    chosen = source.train["source_row"][:]
    assert source.train["id"][:] == [str(7 + row) for row in chosen]
    assert source.train["original_id"][:] == ["wxyz"[row] for row in chosen]


def test_a_class_without_test_examples_is_a_warning(tmp_path: Path) -> None:
    write_tables(tmp_path, texts(3, label=["a", "b", "c"]), texts(2, label=["a", "c"]))
    assert read(str(tmp_path), tmp_path).warnings == ("The test split has no example of b.",)


BAD_TABLES: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any], str]] = {
    "one class": (texts(3, label=["a"] * 3), None, {}, "Every training example has class 'a'"),
    "no label": (texts(3, label=["a", None, "b"]), None, {}, "Row 1 of the training .* no label"),
    "negative": (texts(3, label=[0, 1, -1]), None, {}, "Row 2 of the training .* label -1"),
    "fraction": (texts(3, label=[0.0, 1.5, 2.0]), None, {}, "Row 1 .* label 1.5"),
    "nan label": (texts(2, label=[0.0, float("nan")]), None, {}, "Row 1 .* label nan"),
    "wrong type": (texts(2, label=[[1], [2]]), None, {}, "neither one class .* the right column"),
    "test class": (
        texts(2, label=["a", "b"]),
        texts(2, label=["b", "z"]),
        {},
        r"Row 1 of the test split has class 'z'.*\(it has a, b\)",
    ),
    "mixed types": (texts(2, label=["a", "b"]), texts(1, label=[3]), {}, "has class '3'"),
    "empty": (
        texts(2, label=["a", "b"]),
        {"text": [], "label": []},
        {},
        "test.parquet is empty: it has no rows",
    ),
    "no column": (texts(2, label=["a", "b"]), {"text": ["x"]}, {}, "'test' has no column 'label'"),
    "no such input": (texts(2, label=["a", "b"]), None, {"input": "img"}, "it has text, label"),
    "no such id": (texts(2, label=["a", "b"]), None, {"id": "key"}, "no column 'key'"),
    "two inputs": ({"p": ["x", "y"], "q": ["x", "y"], "label": [0, 1]}, None, {}, "2 columns fit"),
    "no input": ({"n": [1, 2], "label": ["a", "b"]}, None, {}, "No column fits as input"),
    "no labels": (texts(2), None, {}, "No column fits as label; the columns are text"),
    "twice": (
        texts(3, label=["a", "b", "b"], key=["p", "q", "p"]),
        texts(1, label=["a"], key=["z"]),
        {"id": "key"},
        "'p' occurs twice: row 0 of the training split and row 2 of the training split",
    ),
    "across": (
        texts(2, label=["a", "b"], key=[1, 2]),
        None,
        {"id": "key"},
        "'1' occurs twice: row 0 of the training split and row 0 of the test split",
    ),
    "no id": (texts(2, label=["a", "b"], key=["p", None]), None, {"id": "key"}, "Row 1 .* no id"),
    "odd id": (texts(2, label=["a", "b"], key=[[1], [2]]), None, {"id": "key"}, "is not an id"),
    "split": (texts(2, label=["a", "b"]), None, {"test": "dev"}, "'dev'; it has test.parquet, tr"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    train, test, spec, message = BAD_TABLES[name]
    with pytest.raises(DataError, match=message) as error:
        read(write_tables(tmp_path, train, test), tmp_path, **spec)
    assert "\n" not in str(error.value)


def test_a_label_out_of_range_names_its_row(tmp_path: Path) -> None:
    info = {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}}}}
    info["info"]["features"]["label"] = {"names": ["a", "b"], "_type": "ClassLabel"}  # type: ignore[dict-item]
    table = pa.table(texts(3, label=[0, 1, 2])).replace_schema_metadata(
        {"huggingface": json.dumps(info)}
    )
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"Row 2 of the training split has label 2, out of range"):
        read(str(tmp_path), tmp_path)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_broken_and_empty_files_are_named(suffix: str, tmp_path: Path) -> None:
    for content, why in ((b"", "is empty"), (b"\x00PAR1 {,\n\x00\x00\n", "cannot be read")):
        for split in ("train", "test"):
            (tmp_path / f"{split}.{suffix}").write_bytes(content)
        if suffix == "csv" and content:
            content = b'text,label\n"unclosed,a\n'
            (tmp_path / "train.csv").write_bytes(content)
        with pytest.raises(DataError, match=rf"train\.{suffix} {why}") as error:
            read(str(tmp_path), tmp_path)
        assert "\n" not in str(error.value)


def test_a_single_file_needs_a_column_of_splits(tmp_path: Path) -> None:
    write_tables(tmp_path, texts(2, label=["a", "b"]))
    with pytest.raises(DataError, match="has no column `split`"):
        read("train.parquet", tmp_path)
    pq.write_table(
        pa.table(texts(2, label=["a", "b"], split=["train", "dev"])), tmp_path / "all.parquet"
    )
    with pytest.raises(DataError, match="no split 'test'; it has dev, train"):
        read("all.parquet", tmp_path)
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(DataError, match="no known format"):
        read("data.txt", tmp_path)


def test_the_error_for_folders_without_pictures_shows_the_layout(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no pictures\. It should have one subfolder"):
        read(str(tmp_path), tmp_path)


NPZ: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "object": ({"train_label": np.array([{}, {}])}, "Python objects are not accepted"),
    "nan": ({"train_input": np.full((2, 4, 4), np.nan)}, "input of train, row 0, holds NaN"),
    "nan label": ({"train_label": np.array([0.0, np.nan])}, "label of train, row 1, holds NaN"),
    "lengths": ({"train_label": np.arange(3)}, "2 of input, 3 of label"),
    "shape": ({"train_input": np.zeros((2, 4), np.uint8)}, r"has shape \[2, 4\]"),
    "channels": ({"train_input": np.zeros((2, 5, 4, 7), np.uint8)}, "has shape"),
    "normalized": ({"train_input": np.full((2, 4, 4), -0.3)}, "before any normalization"),
    "too large": ({"train_input": np.full((2, 4, 4), 300)}, "not pixels"),
    "labels": ({"train_label": np.zeros((2, 5))}, r"neither one class nor one-hot"),
    "empty": ({"train_input": np.zeros((0, 4, 4)), "train_label": np.zeros(0)}, "is empty"),
    "twice": ({"train_id": np.array([4, 4]), "test_id": np.array([5, 6])}, "'4' occurs twice"),
}


@pytest.mark.parametrize("name", NPZ)
def test_a_bad_npz_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, message = NPZ[name]
    pixels = np.zeros((2, 4, 4), np.uint8)
    good = {"train_input": pixels, "test_input": pixels}
    good |= {"train_label": np.arange(2), "test_label": np.arange(2)}
    np.savez(tmp_path / "a.npz", **{**good, **change})
    spec = {"id": "id"} if "train_id" in change else {}
    with pytest.raises(DataError, match=message) as error:
        read("a.npz", tmp_path, **spec)
    assert "\n" not in str(error.value)


def test_the_error_for_a_missing_array_names_the_existing_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_input=np.zeros((2, 4, 4), np.uint8), y_train=np.arange(2))
    with pytest.raises(DataError, match=r"no array 'test_input' .* it has train_input, y_train"):
        read("a.npz", tmp_path)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read("b.npz", tmp_path)


def test_npz_of_texts(tmp_path: Path) -> None:
    arrays = {f"{s}_input": np.array(["a b", "c"]) for s in ("train", "test")}
    arrays |= {f"{s}_label": np.arange(2) for s in ("train", "test")}
    np.savez(tmp_path / "a.npz", **arrays)
    assert read("a.npz", tmp_path).train["input"][:] == ["a b", "c"]


# --- what is shipped ------------------------------------------------------------------------------


def test_the_embedded_dataset() -> None:
    source = read("fashion-mnist", Path("/"))
    assert (len(source.train), len(source.test), len(source.classes)) == (5000, 1000, 10)
    assert source.classes[source.train[0]["label"]] == "Ankle boot"
    assert source.warnings == ()
    folder = asset("fashion-mnist")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4_000_000
    assert "MIT" in (folder / "LICENSE").read_text()
    assert "Xiao" in (folder / "CITATION").read_text()


IDX = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not IDX.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_embedded_pictures_are_the_originals() -> None:
    import gzip

    with gzip.open(IDX / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + 1000 * 784), np.uint8)[16:].reshape(1000, 28, 28)
    with gzip.open(IDX / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + 1000), np.uint8)[8:]
    table = pq.read_table(asset("fashion-mnist") / "test.parquet").to_pylist()
    for row, picture, label in zip(table, pixels, labels, strict=True):
        np.testing.assert_array_equal(Image.open(io.BytesIO(row["image"]["bytes"])), picture)
        assert row["label"] == label


@pytest.mark.parametrize(
    "name",
    [
        "cifar10",
        "fashion-mnist",
        "photos",
        "photos-multilabel",
        "photos-regression",
        "text",
        "text-multilabel",
        "text-regression",
    ],
)
def test_shipped_specs_are_valid(name: str) -> None:
    spec = load_spec(asset(f"specs/{name}.toml"))
    task = load_task(spec.task.name)
    task.options.model_validate(spec.task.own_keys())
    assert (spec.data.source == "") == (name != "fashion-mnist")


def test_an_asset_that_is_missing() -> None:
    with pytest.raises(DataError, match="installation is not whole"):
        asset("no-such-thing")


def test_thumbnails_need_neither_torch_nor_datasets() -> None:
    code = "import sys, engine.data; sys.exit(bool({'torch', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the fingerprint ------------------------------------------------------------------------------


def test_the_fingerprint_changes_if_and_only_if_the_content_does() -> None:
    rng = np.random.default_rng(0)
    arrays = {"input": rng.integers(0, 9, (6, 4)), "label": np.arange(6)}
    ids = [f"train-{i}" for i in range(6)]

    def cut(at: list[int], arrays: dict[str, np.ndarray], ids: list[str]) -> list[Any]:
        edges = [0, *at, 6]
        return [
            ({name: a[i:j] for name, a in arrays.items()}, ids[i:j])
            for i, j in itertools.pairwise(edges)
        ]

    def stands_for(
        train: Any, classes: tuple[str, ...] = ("a", "b"), shape: int = 4, name: str = "train"
    ) -> str:
        return dataset_fingerprint({name: train}, classes, {"shape": shape})

    reference = stands_for(cut([], arrays, ids))
    assert stands_for(cut([1, 4], arrays, ids)) == reference
    assert stands_for(cut([3], dict(reversed(arrays.items())), list(ids))) == reference
    changed = {**arrays, "input": arrays["input"].copy()}
    changed["input"][3, 2] += 1
    others = [
        stands_for(cut([], changed, ids)),
        stands_for(cut([], {**arrays, "label": arrays["label"][::-1]}, ids)),
        stands_for(cut([], {**arrays, "input": arrays["input"].astype(np.int32)}, ids)),
        stands_for(cut([], {**arrays, "input": arrays["input"].reshape(6, 2, 2)}, ids)),
        stands_for(cut([], {**arrays, "more": np.zeros(6)}, ids)),
        stands_for(cut([], {"inputs": arrays["input"], "label": arrays["label"]}, ids)),
        stands_for(cut([], arrays, [*ids[:5], "train-6"])),
        stands_for(cut([], arrays, ids), classes=("b", "a")),
        stands_for(cut([], arrays, ids), shape=5),
        stands_for(cut([], arrays, ids), name="test"),
    ]
    assert len({reference, *others}) == 1 + len(others)


def test_shards_that_do_not_fit_together_have_no_fingerprint() -> None:
    shards = [({"input": np.zeros((1, 2))}, ["a"]), ({"input": np.zeros((1, 3))}, ["b"])]
    with pytest.raises(DataError, match="do not fit together"):
        dataset_fingerprint({"train": shards}, ["a"], {})
