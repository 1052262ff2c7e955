"""Tables that people bring: each is read exactly, or refused in one line that says why."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
import torch
from safetensors.torch import save_file

from engine.data.sources import Source, load_source
from engine.exchange.importing.matrix import open_matrix
from engine.store.errors import DataError
from engine.store.spec import DataSpec
from engine.training.weights import load_weights

pytestmark = pytest.mark.input_case

Row = tuple[str, Any]
TRAIN: list[Row] = [("good film", "pos"), ("bad, long film", "neg"), ('a "fine" one', "pos")]
TEST: list[Row] = [("so so", "neg"), ("fine\nthen", "pos")]
SPLITS: dict[str, list[Row]] = {"train": TRAIN, "test": TEST}
ODD = "[1]*? #%"
"""A folder name that holds every character with a meaning in patterns, URLs and chains of these."""


def read(source: str | Path, **spec: Any) -> Source:
    return load_source(DataSpec(source=str(source), **spec), Path("/"))


def content(source: Source) -> dict[str, list[Row]]:
    """(input, class) of every row."""
    return {
        split: [(row["input"], source.classes[row["label"]]) for row in rows]
        for split, rows in (("train", source.train), ("test", source.test))
    }


def refused(source: str | Path, message: str, **spec: Any) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(source, **spec)
    assert "\n" not in str(error.value)


# --- formats --------------------------------------------------------------------------------------


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["text", "label"])


def delimited(path: Path, rows: list[Row], delimiter: str = ",", encoding: str = "utf-8") -> None:
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
        writer.writerows([("text", "label"), *rows])


def json_lines(path: Path, rows: list[Row]) -> None:
    text = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def json_records(path: Path, rows: list[Row], indent: int | None = None) -> None:
    found = [{"text": text, "label": label} for text, label in rows]
    path.write_text(json.dumps(found, indent=indent))


def json_columns(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps(frame(rows).to_dict("list")))


def pandas_json(path: Path, rows: list[Row]) -> None:
    frame(rows).to_json(path)


def arrow(path: Path, rows: list[Row], new: Callable[..., Any], **options: Any) -> None:
    table = pa.Table.from_pandas(frame(rows), preserve_index=False)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, **options) as writer:
        writer.write_table(table)


def feather(path: Path, rows: list[Row], compression: str) -> None:
    pa.feather.write_feather(frame(rows), str(path), compression=compression)


def saved(folder: Path, rows: list[Row]) -> None:
    datasets.Dataset.from_pandas(frame(rows)).save_to_disk(str(folder))


def categories(path: Path, rows: list[Row]) -> None:
    frame(rows).astype({"label": "category"}).to_parquet(path)


FORMATS: dict[str, tuple[str, Callable[[Path, list[Row]], None]]] = {
    "csv": ("{}.csv", delimited),
    "upper-case suffix": ("{}.CSV", delimited),
    "csv.gz": ("{}.csv.gz", delimited),
    "tsv": ("{}.tsv", lambda path, rows: delimited(path, rows, "\t")),
    "tsv.gz": ("{}.tsv.gz", lambda path, rows: delimited(path, rows, "\t")),
    "semicolons": ("{}.csv", lambda path, rows: delimited(path, rows, ";")),
    "tabs in csv": ("{}.csv", lambda path, rows: delimited(path, rows, "\t")),
    "bars": ("{}.csv", lambda path, rows: delimited(path, rows, "|")),
    "byte order mark": ("{}.csv", lambda path, rows: delimited(path, rows, encoding="utf-8-sig")),
    "utf-16": ("{}.csv", lambda path, rows: delimited(path, rows, encoding="utf-16")),
    "jsonl": ("{}.jsonl", json_lines),
    "jsonl.gz": ("{}.jsonl.gz", json_lines),
    "ndjson": ("{}.ndjson", json_lines),
    "lines in json": ("{}.json", json_lines),
    "list of rows": ("{}.json", json_records),
    "indented rows": ("{}.json", lambda path, rows: json_records(path, rows, 2)),
    "json by column": ("{}.json", json_columns),
    "json of pandas": ("{}.json", pandas_json),
    "parquet": ("{}.parquet", lambda path, rows: frame(rows).to_parquet(path)),
    "parquet of categories": ("{}.parquet", categories),
    "arrow stream": ("{}.arrow", lambda path, rows: arrow(path, rows, pa.ipc.new_stream)),
    "arrow file": ("{}.arrow", lambda path, rows: arrow(path, rows, pa.ipc.new_file)),
    "arrow file with zstd": (
        "{}.arrow",
        lambda path, rows: arrow(
            path, rows, pa.ipc.new_file, options=pa.ipc.IpcWriteOptions(compression="zstd")
        ),
    ),
    "feather": ("{}.feather", lambda path, rows: feather(path, rows, "uncompressed")),
    "feather with lz4": ("{}.feather", lambda path, rows: feather(path, rows, "lz4")),
    "save_to_disk": ("{}", saved),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_in_a_folder_with_an_odd_name(name: str, tmp_path: Path) -> None:
    """Beside it are folders that its name matches as a pattern, with other rows."""
    pattern, write = FORMATS[name]
    for folder in (ODD, "1x #%", "1ab #%"):
        (tmp_path / folder).mkdir()
        for split, rows in SPLITS.items():
            other = [(text, f"decoy {label}") for text, label in rows]
            write(tmp_path / folder / pattern.format(split), rows if folder == ODD else other)
    assert content(read(tmp_path / ODD)) == SPLITS


def test_arrays_in_a_file_with_an_odd_name(tmp_path: Path) -> None:
    arrays = {f"{s}_input": np.array([text for text, _ in rows]) for s, rows in SPLITS.items()}
    arrays |= {f"{s}_label": np.array([label for _, label in rows]) for s, rows in SPLITS.items()}
    for folder in (ODD, "1x #%"):
        (tmp_path / folder).mkdir()
    with (tmp_path / ODD / "a[1]*.NPZ").open("wb") as file:
        np.savez(file, **arrays)
    (tmp_path / "1x #%" / "a1.NPZ").write_bytes(b"decoy")
    assert content(read(tmp_path / ODD / "a[1]*.NPZ")) == SPLITS


def test_weights_and_scores_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    for folder, value in ((ODD, 1.0), ("1x #%", 2.0)):
        (tmp_path / folder).mkdir()
        weights = {"weight": torch.full((1, 1), value)}
        save_file(weights, str(tmp_path / folder / "w[1]*.safetensors"))
        np.save(tmp_path / folder / "s[1]*.npy", np.zeros((2, round(value))))
    model = torch.nn.Linear(1, 1, bias=False)
    load_weights(tmp_path / ODD / "w[1]*.safetensors", model)
    assert model.weight.item() == 1
    assert open_matrix(tmp_path / ODD / "s[1]*.npy")[1].shape == (2, 1)


def test_a_split_whose_name_is_a_pattern(tmp_path: Path) -> None:
    for split, rows in (("tr[a]in", TRAIN), ("train", TEST), ("te*", TEST), ("test", TRAIN)):
        delimited(tmp_path / f"{split}.csv", rows)
    assert content(read(tmp_path, train="tr[a]in", test="te*")) == SPLITS


@pytest.mark.parametrize("layout", ["rows", "columns", "one line each"])
def test_json_keyed_by_split(layout: str, tmp_path: Path) -> None:
    found = {
        split: frame(rows).to_dict("list" if layout == "columns" else "records")
        for split, rows in SPLITS.items()
    }
    path = tmp_path / "all.json"
    path.write_text(json.dumps(found, indent=None if layout == "one line each" else 1))
    assert content(read(path)) == SPLITS


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
def test_one_file_with_a_column_of_splits(suffix: str, tmp_path: Path) -> None:
    rows = pd.concat([frame(found).assign(split=split) for split, found in SPLITS.items()])
    path = tmp_path / f"all.{suffix}"
    if suffix == "csv":
        rows.to_csv(path, index=False)
    elif suffix == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    elif suffix == "parquet":
        rows.to_parquet(path)
    else:
        pa.feather.write_feather(rows.reset_index(drop=True), str(path))
    assert content(read(path)) == SPLITS


# --- texts of files -------------------------------------------------------------------------------

BYTES: dict[str, tuple[bytes, list[Row]]] = {
    "CRLF": (b"text,label\r\na b,x\r\nc d,y\r\n", [("a b", "x"), ("c d", "y")]),
    "old Mac": (b"text,label\ra b,x\rc d,y\r", [("a b", "x"), ("c d", "y")]),
    "no last line end": (b"text,label\na b,x\nc d,y", [("a b", "x"), ("c d", "y")]),
    "blank lines": (b"text,label\n\na b,x\n\nc d,y\n\n", [("a b", "x"), ("c d", "y")]),
    "quoted line break": (
        b'text,label\n"a\r\nb, ""c""",x\nc d,y\n',
        [('a\r\nb, "c"', "x"), ("c d", "y")],
    ),
    "spaces in the header": (b"text, label\na b,x\nc d,y\n", [("a b", "x"), ("c d", "y")]),
    "commas between semicolons": (
        b"text;label\nwell, yes;x\nno, no;y\n",
        [("well, yes", "x"), ("no, no", "y")],
    ),
    "semicolon in a quoted header": (
        b'"text",label,"a;b"\na b,x,1\nc d,y,2\n',
        [("a b", "x"), ("c d", "y")],
    ),
    "index of pandas": (b",text,label\n0,a b,x\n1,c d,y\n", [("a b", "x"), ("c d", "y")]),
    "long cell": (
        b"text,label\n" + b"ab " * 100_000 + b",x\nc d,y\n",
        [("ab " * 100_000, "x"), ("c d", "y")],
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_the_bytes_of_a_csv_file(name: str, tmp_path: Path) -> None:
    written, rows = BYTES[name]
    for split in SPLITS:
        (tmp_path / f"{split}.csv").write_bytes(written)
    assert content(read(tmp_path)) == {"train": rows, "test": rows}


def test_quotation_marks_that_are_text_in_tsv(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"{split}.tsv").write_text('text\tlabel\n"well he said\tx\n12" disk "new"\ty\n')
    source = read(tmp_path)
    assert content(source)["train"] == [('"well he said', "x"), ('12" disk "new"', "y")]
    assert any("Quotation marks in train.tsv" in note for note in source.notes)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("labels", [["0017", "17"], ["NA", "None"], ["true", "false"]])
@pytest.mark.parametrize("more", [["1e5", "100000"], ["1.0", "1"], ["null", "nan"]])
def test_labels_are_what_the_file_writes(
    suffix: str, labels: list[str], more: list[str], tmp_path: Path
) -> None:
    rows = [(f"word {i}", label) for i, label in enumerate([*labels, *more])]
    for split in SPLITS:
        (delimited if suffix == "csv" else json_lines)(tmp_path / f"{split}.{suffix}", rows)
    found = content(read(tmp_path))
    assert found == {"train": rows, "test": rows}


@dataclass(frozen=True)
class Labels:
    written: list[Any]
    """Labels of both splits, or of the training split where there are others."""
    classes: list[str]
    suffix: str = "csv"
    test: list[Any] | None = None
    warning: str = ""
    spec: dict[str, Any] = field(default_factory=dict)


LABELS: dict[str, Labels] = {
    "whole numbers by value": Labels(["10", "9", "2"], ["2", "9", "10"]),
    "a text after whole numbers": Labels(["0", "1", "n/a"], ["0", "1", "n/a"]),
    "floats of a CSV": Labels(["0.0", "1.0"], ["0.0", "1.0"]),
    "number in JSON": Labels([1.0, 0.0], ["0", "1"], "jsonl"),
    "booleans in JSON": Labels([True, False], ["false", "true"], "jsonl"),
    "text and number in JSON": Labels(["a", 1], ["1", "a"], "jsonl", warning="read as text"),
    "signs": Labels(["-1", "1"], ["-1", "1"]),
    "signs as floats": Labels([-1.0, 1.0], ["-1", "1"], "jsonl"),
    "signs with a plus": Labels(["+1", "-1"], ["+1", "-1"]),
    "one-hot": Labels([[0, 0, 1], [1, 0, 0]], ["0", "2"], "jsonl"),
    "one-hot floats": Labels([[0.0, 1.0], [1.0, 0.0]], ["0", "1"], "jsonl"),
    "zeros in front": Labels(
        ["1", "17", "017"], ["017", "1", "17"], test=["017", "1"], warning="'017' and '17' look"
    ),
    "number against text": Labels(
        ["1", "2", "x"], ["1", "2", "x"], test=["1", "2"], warning="are texts in the training"
    ),
    "JSON number against JSON text": Labels(
        [1, 2], ["1", "2"], "jsonl", test=["1", "2"], warning="are numbers in the training"
    ),
    "number and text of one look": Labels([1, "1", 2], ["1", "2"], "jsonl", warning="read as text"),
    "space in front": Labels([" pos", "pos", "neg"], [" pos", "neg", "pos"], warning="' pos' and"),
    "space inside": Labels(["a\u00a0b", "a b"], ["a b", "a\u00a0b"], warning="look alike"),
    "capitals": Labels(["Pos", "pos"], ["Pos", "pos"], warning="'Pos' and 'pos' look alike"),
    "accents": Labels(
        ["cafe\u0301", "caf\u00e9"], ["cafe\u0301", "caf\u00e9"], warning=r"'cafe\\u0301' .* and"
    ),
    "invisible": Labels(["pos\u200b", "pos"], ["pos", "pos\u200b"], warning="look alike"),
    "numbers of one value": Labels(["1", "1.0"], ["1", "1.0"], warning="'1' and '1.0' look alike"),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_kind(name: str, tmp_path: Path) -> None:
    case = LABELS[name]
    for split, labels in (("train", case.written), ("test", case.test or case.written)):
        rows = [(f"word {i}", label) for i, label in enumerate(labels)]
        write = delimited if case.suffix == "csv" else json_lines
        write(tmp_path / f"{split}.{case.suffix}", rows)
    source = read(tmp_path, **case.spec)
    assert source.classes == case.classes
    shown = {"True": "true", "False": "false"}
    for split, labels in (("train", case.written), ("test", case.test or case.written)):
        expected = [
            str(label.index(1))
            if isinstance(label, list)
            else shown.get(str(label), f"{label:g}" if isinstance(label, float) else str(label))
            for label in labels
        ]
        assert [name for _, name in content(source)[split]] == expected
    warnings = " ".join((*source.notes, *source.warnings))
    if case.warning:
        assert re.search(case.warning, warnings)
    else:
        assert "alike" not in warnings


def test_one_hot_arrays(tmp_path: Path) -> None:
    arrays = {f"{s}_input": np.zeros((3, 4, 4), np.uint8) for s in SPLITS}
    arrays |= {f"{s}_label": np.eye(3)[[2, 0, 1]] for s in SPLITS}
    np.savez(tmp_path / "a.npz", **arrays)
    source = read(tmp_path / "a.npz")
    assert source.classes == ["0", "1", "2"]
    assert source.train["label"][:] == [2, 0, 1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("late", ["n/a", "007", "1.5"])
def test_a_type_that_changes_late(suffix: str, late: str, tmp_path: Path) -> None:
    """Readers that look at the first rows only, or at one piece at a time, get these wrong."""
    labels = [*(str(i % 2) for i in range(25_000)), late]
    lines = [(f"word {i}", label) for i, label in enumerate(labels)]
    path = tmp_path / f"train.{suffix}"
    if suffix == "csv":
        delimited(path, lines)
    else:
        numbers = [(text, int(label) if label in ("0", "1") else label) for text, label in lines]
        json_lines(path, numbers)
    delimited(tmp_path / "test.csv", [("x", "0"), ("y", "1")])
    source = read(tmp_path)
    assert source.classes == sorted({"0", "1", late})
    found = source.train["label"][:]
    assert [source.classes[label] for label in found] == labels


def test_other_columns_have_types_of_all_their_cells(tmp_path: Path) -> None:
    header = "text,label,n,share,zip,flag,big,empty,late"
    rows = [
        "a b,x,1,0.5,0123,true,12345678901234567890,,1",
        "c d,y,,2,1234,False,1,,?",
    ]
    for split in SPLITS:
        (tmp_path / f"{split}.csv").write_text("\n".join([header, *rows]))
    table = read(tmp_path).train.remove_columns(["input", "label", "id"])
    assert table[:] == {
        "n": [1, None],
        "share": [0.5, 2.0],
        "zip": ["0123", "1234"],
        "flag": [True, False],
        "big": ["12345678901234567890", "1"],
        "empty": [None, None],
        "late": ["1", "?"],
    }


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "Latin-1": ("csv", "text,label\ncafé,x\nb,y\n".encode("latin-1"), "not in UTF-8 .*0xe9"),
    "Latin-1 in JSON": ("jsonl", '{"text": "café"}'.encode("latin-1"), "not in UTF-8 .*0xe9"),
    "UTF-16 without a mark": ("csv", "text,label\na,x\n".encode("utf-16-le"), "not text"),
    "too many cells": ("csv", b"text,label\na,x\nb,c,y\n", "line 3 has 3 cells, .* has 2"),
    "too few cells": ("csv", b"text,label\na,x\nb\n", "line 3 has 1 cells"),
    "unclosed quote": ("csv", b'text,label\n"a,x\nb,y\n', "line 3: unexpected end of data"),
    "column twice": ("csv", b"text,label,label\na,x,y\n", "column 'label' twice"),
    "cut gzip": ("csv.gz", gzip.compress(b"text,label\na,x\n" * 99)[:40], "cannot be read as csv"),
    "header only": ("csv", b"text,label\n", "it has no rows"),
    "empty label": ("csv", b"text,label\na,x\nb,\n", "Row 1 of the training split has no label"),
    "half a line": ("jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"', "line 2 is not a whole"),
    "a line of a list": ("jsonl", b'{"text": "a", "label": "x"}\n["b"]', "line 2 is not an object"),
    "a number": ("json", b"17", "not a list of objects"),
    "negative": ("csv", b"text,label\na,0\nb,1\nc,-1\n", "Row 2 .* label -1.*missing label"),
    "two ones": ("jsonl", b'{"text": "a", "label": [1, 1]}', "neither one class nor one-hot"),
    "no zero": ("jsonl", b'{"text": "a", "label": [1, null]}', "neither one class nor one-hot"),
    "soft labels": ("jsonl", b'{"text": "a", "label": [0.9, 0.1]}', "neither one class nor one-"),
    "quantities": ("csv", b"text,label\na b,0.25\nc d,1.5\n", "a quantity, not classes"),
    "nested": (
        "json",
        b'{"version": 1, "data": [{"text": "a b", "label": "x"}]}',
        "No column fits",
    ),
    "one-hot columns": ("csv", b"text,cat,dog\na b,0,1\nc d,1,0\n", r"cat, dog \(one-hot\)"),
    "first version of Feather": ("feather", b"FEA1" + bytes(40), "first version of Feather"),
    "no Arrow": ("arrow", b"something else", "cannot be read as arrow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    suffix, written, message = REFUSED[name]
    for split in SPLITS:
        (tmp_path / f"{split}.{suffix}").write_bytes(written)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["pos", "neg"], ["Pos"], r"class 'Pos', .* The training split's 'pos' looks like it"),
        (["caf\u00e9", "neg"], ["cafe\u0301"], r"class 'cafe\\u0301' .*'caf\u00e9' looks like it"),
        (["1", "2"], ["1.0"], "class '1.0', .*'1' looks like it"),
        (["1", "2"], ["3x"], r"class '3x', .*\(it has 1, 2\)\. Remove"),
    ],
    ids=["capitals", "accents", "1.0", "another"],
)
def test_a_test_class_like_a_training_class(
    train: list[str], test: list[str], message: str, tmp_path: Path
) -> None:
    for split, labels in (("train", train), ("test", test)):
        delimited(tmp_path / f"{split}.csv", [("a b", label) for label in labels])
    refused(tmp_path, message)
