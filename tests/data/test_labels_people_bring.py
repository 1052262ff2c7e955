"""Labels of regression and multi-label tasks that people bring: read exactly, or refused in one
line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from engine.data.label_kinds import label_texts
from engine.data.sources import Source, load_source
from engine.store.errors import DataError
from engine.store.records import LabelKind
from engine.store.spec import DataSpec

pytestmark = pytest.mark.input_case

TEXTS = [f"some words {number} of a text" for number in range(40)]


@dataclass(frozen=True)
class Case:
    """Columns of the training split by name; those of the test split are the same, unless given.

    A column is written to a file of the kind `suffix`.
    """

    columns: dict[str, Any]
    expected: Any
    """What `labels` gives for both splits, or a part of the refusal."""
    suffix: str = "parquet"
    test: dict[str, Any] | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    says: str = ""
    """Part of a note or a warning."""


def write(case: Case, folder: Path) -> Path:
    for split, columns in (("train", case.columns), ("test", case.test or case.columns)):
        size = len(next(iter(columns.values())))
        table = {"text": TEXTS[:size], **columns}
        path = folder / f"{split}.{case.suffix}"
        if case.suffix == "csv":
            pd.DataFrame(table).to_csv(path, index=False)
        elif case.suffix == "jsonl":
            rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            path.write_text("\n".join(json.dumps(row) for row in rows))
        else:
            pa.parquet.write_table(pa.table(table), path)
    return folder


def read(case: Case, kind: LabelKind, folder: Path) -> Source:
    return load_source(DataSpec(source=str(write(case, folder)), **case.spec), Path("/"), kind=kind)


def refused(case: Case, kind: LabelKind, folder: Path) -> None:
    with pytest.raises(DataError, match=case.expected) as error:
        read(case, kind, folder)
    assert "\n" not in str(error.value)


def check(case: Case, kind: LabelKind, folder: Path) -> None:
    source = read(case, kind, folder)
    for rows in (source.train, source.test) if case.test is None else (source.train,):
        found = rows["label"][:]
        assert (found if kind == "number" else label_texts(kind, found, source.classes)) == (
            case.expected
        )
    said = " ".join((*source.notes, *source.warnings))
    assert case.says in said if case.says else not source.warnings


STARS = datasets.ClassLabel(names=["1", "2", "5"])
MOODS = datasets.ClassLabel(names=["sad", "glad"])

NUMBERS: dict[str, Case] = {
    "whole numbers": Case({"label": [3, -1, 2]}, [3.0, -1.0, 2.0]),
    "floats": Case({"label": [0.5, 1e-9, -2.25]}, [0.5, 1e-9, -2.25]),
    "float16": Case({"label": np.array([0.5, 2], np.float16)}, [0.5, 2.0]),
    "unsigned": Case({"label": np.array([250, 3], np.uint8)}, [250.0, 3.0]),
    "decimals": Case(
        {"label": pa.array([Decimal("1.25"), Decimal(-3)], pa.decimal128(5, 2))}, [1.25, -3.0]
    ),
    "texts": Case({"label": ["3.5", " 4 ", "-1e2"]}, [3.5, 4.0, -100.0]),
    "texts with a minus sign": Case({"label": ["−3.5", "+4"]}, [-3.5, 4.0]),
    "texts of a CSV": Case({"label": ["0.10", "007", "1."]}, [0.1, 7.0, 1.0], "csv"),
    "numbers in JSON": Case({"label": [1, 2.5, "3"]}, [1.0, 2.5, 3.0], "jsonl"),
    "lists of one number": Case({"label": [[1.5], [2.5]]}, [1.5, 2.5], "jsonl"),
    "classes that are numbers": Case({"label": "STARS"}, [1.0, 5.0, 2.0]),
    "rating": Case({"rating": [1, 5, 2]}, [1.0, 5.0, 2.0]),
    "score": Case({"score": [0.1, 0.5]}, [0.1, 0.5], "csv"),
    "Value": Case({"Value": [0.1, 0.5]}, [0.1, 0.5], "csv"),
    "y": Case({"y": [0.1, 0.5]}, [0.1, 0.5]),
    "target": Case({"target": ["1", "2"]}, [1.0, 2.0], "jsonl"),
    "the only column of numbers": Case({"age": [20, 30], "name": ["a b c", "d"]}, [20.0, 30.0],
        spec={"input": "text"}),
    "named": Case({"age": [20, 30], "score": [1, 2]}, [20.0, 30.0], spec={"label": "age"}),
    "a class beside the score": Case({"label": ["pos", "neg"], "score": [1, 2]}, [1.0, 2.0]),
    "two usual names": Case({"score": [3, 4], "rating": [1, 2]}, [1.0, 2.0], says="not 'score'"),
    "test beyond training": Case(
        {"label": [1, 2]}, [1.0, 2.0], test={"label": [0, 1, 2, 3]}, says="2 of 4 test labels"
    ),
    "a sample": Case({"label": [*range(40)]}, [4.0, 11.0, 27.0], spec={"train_limit": 3,
        "test_limit": 3}, test={"label": [*range(40)]}),
}  # fmt: skip

BAD_NUMBERS: dict[str, Case] = {
    "decimal comma": Case({"label": ["1.5", "3,5"]}, "Row 1 .* '3,5' .*decimal point", "csv"),
    "thousands": Case({"label": ["1,234.5", "2"]}, "Row 0 .* '1,234.5' .*decimal point", "csv"),
    "spaces in a number": Case({"label": ["1 234,5", "2"]}, "Row 0 .*decimal point", "csv"),
    "NaN": Case({"label": [1.0, float("nan")]}, "Row 1 .* 'nan' .*not a finite number"),
    "infinity": Case({"label": [float("inf"), 1.0]}, "Row 0 .* 'inf' .*not a finite number"),
    "NaN in a text": Case({"label": ["1", "2", "nan"]}, "Row 2 .* 'nan' ", "csv"),
    "too large": Case({"label": ["1", "1e999"]}, "Row 1 .* '1e999' .*not a finite number"),
    "underscore": Case({"label": ["1_000", "2"]}, "Row 0 .* '1_000' .*not a finite number"),
    "unit": Case({"label": ["5 stars", "3 stars"]}, "Row 0 .*'5 stars'.*not a finite number"),
    "percent": Case({"label": ["5%", "3%"]}, "Row 0 .*'5%'.*not a finite number", "csv"),
    "empty cell": Case({"label": ["1", None]}, "Row 1 .* no label", "csv"),
    "empty text": Case({"label": ["1", ""]}, "Row 1 .* '' .*not a finite number", "jsonl"),
    "missing": Case({"label": [1.5, None]}, "Row 1 of the training split has no label"),
    "missing in the test split": Case(
        {"label": [1.5, 2]}, "Row 1 of the test split has no label", test={"label": [1.0, None]}
    ),
    "words": Case({"label": ["good", "bad"]}, "Row 0 .*'good'.*not a finite number"),
    "classes": Case({"label": "MOODS"}, "holds classes .sad, glad., and this task predicts num"),
    "true and false": Case({"label": [True, False]}, "holds bool, .* predicts numbers"),
    "dates": Case({"label": pd.to_datetime(["2020-01-01", "2021-01-01"])}, "holds timestamp"),
    "vectors": Case({"label": [[1.0, 2.0], [3.0, 4.0]]}, "Row 0 .* list of 2 .* one number"),
    "one value": Case({"label": [2, 2, 2]}, "Every training example has the label 2"),
    "one value in the sample": Case(
        {"label": [0.0] * 39 + [1.0]}, "train_limit = 2 .* one label only", spec={"train_limit": 2}
    ),
    "two columns fit": Case({"age": [1, 2], "size": [3, 4]}, r"2 columns fit \(age, size\)"),
    "several columns": Case({"a": [1, 2], "b": [3, 4]}, "names 2 columns",
        spec={"label": ["a", "b"]}),
    "classes named": Case({"label": [1, 2]}, "only multi-label", spec={"classes": ["a", "b"]}),
}  # fmt: skip

LISTS = [["red", "blue"], [], ["blue"]]
AS_TEXTS = ["blue, red", "none", "blue"]

SEVERAL: dict[str, Case] = {
    "lists": Case({"label": LISTS}, AS_TEXTS),
    "lists in JSON": Case({"label": LISTS}, AS_TEXTS, "jsonl"),
    "tags": Case({"tags": LISTS, "length": [1, 2, 3]}, AS_TEXTS),
    "the only lists": Case({"colors": LISTS, "length": [1, 2, 3]}, AS_TEXTS),
    "lists of numbers": Case({"label": [[10, 2], [], [2]]}, ["2, 10", "none", "2"]),
    "lists of whole floats": Case({"label": [[10.0, 2.0], [], [2.0]]}, ["2, 10", "none", "2"]),
    "lists of classes": Case({"label": "CLASSES"}, ["sad, glad", "none", "glad"]),
    "semicolons": Case({"label": ["red;blue", "[]", " blue ;"]}, AS_TEXTS, "csv"),
    "bars": Case({"label": ["red|blue", "[]", "blue"]}, AS_TEXTS, "csv"),
    "commas within": Case({"label": ["a, b;c", "c", "[]"]}, ["a, b, c", "c", "none"], "csv"),
    "JSON lists": Case({"label": ['["red", "blue"]', "[]", '["blue"]']}, AS_TEXTS, "csv"),
    "lists of pandas": Case({"label": ["['red', 'blue']", "[]", "['blue']"]}, AS_TEXTS, "csv"),
    "multi-hot": Case({"label": [[1, 1, 0], [0, 0, 0], [0, 1, 1]]}, ["0, 1", "none", "1, 2"]),
    "multi-hot texts": Case({"label": ["[1, 1, 0]", "[0, 0, 1]"]}, ["0, 1", "2"], "csv"),
    "multi-hot floats": Case({"label": [[1.0, 1.0], [0.0, 0.0]]}, ["0, 1", "none"]),
    "multi-hot booleans": Case({"label": [[True, True], [False, False]]}, ["0, 1", "none"]),
    "multi-hot with names": Case({"label": [[1, 1], [0, 0]]}, ["cat, dog", "none"],
        spec={"classes": ["cat", "dog"]}),
    "objects": Case({"label": [{"cat": 1, "dog": 1}, {"cat": 0, "dog": 0}]}, ["cat, dog", "none"]),
    "columns": Case({"cat": [1, 1, 0], "dog": [0, 1, 0]}, ["cat", "cat, dog", "none"],
        spec={"label": ["cat", "dog"]}),
    "columns of a CSV": Case({"cat": [True, True, False], "dog": [0, 1, 0]},
        ["cat", "cat, dog", "none"], "csv", spec={"label": ["cat", "dog"]}),
    "columns of words": Case({"cat": ["yes", "Yes", "no"], "dog": ["0", "1", "0"]},
        ["cat", "cat, dog", "none"], "jsonl", spec={"label": ["cat", "dog"]}),
    "one column of true and false": Case({"cat": [True, False]}, ["cat", "none"],
        spec={"label": "cat"}),
    "one column of 0 and 1": Case({"cat": [1, 0]}, ["cat", "none"], spec={"label": ["cat"]}),
    "test lists that look like places": Case({"label": [[0], [1], [1, 0]]}, ["0", "1", "0, 1"],
        test={"label": [[0, 1], [1, 0]]}),
    "one class": Case({"label": [["a"], [], ["a"]]}, ["a", "none", "a"]),
    "twice in a row": Case({"label": [["a", "a"], ["b"], ["a", "b"]]}, ["a", "b", "a, b"],
        says="2 examples name a class twice"),
    "always": Case({"label": [["a", "b"], ["a"]]}, ["a, b", "a"], says="example has the class a"),
    "one each": Case({"label": [["a"], ["b"]]}, ["a", "b"], says="exactly one class"),
    "alike": Case({"label": [["Pos", "b"], ["pos"]]}, ["Pos, b", "pos"], says="look alike"),
}  # fmt: skip

BAD_SEVERAL: dict[str, Case] = {
    "one class each": Case({"label": "MOODS"}, "holds one class for each example"),
    "numbers": Case({"label": [1, 2]}, "holds int64 for each example, .* several classes"),
    "commas": Case({"label": ["red, blue", "blue"]}, "Row 0 .* Commas do not separate"),
    "both marks": Case({"label": ["a;b", "a|b"]}, "both ';' .row 0. and '|' .row 1."),
    "cut JSON": Case({"label": ['["a"', '["b"]']}, "Row 0 .* not a JSON list", "csv"),
    "JSON beside text": Case({"label": ['["a"]', "b"]}, "Row 1 .* not a JSON list", "csv"),
    "missing": Case({"label": [["a"], None]}, r"Row 1 .* no label .*Write \[\] for"),
    "empty text": Case({"label": ["a;b", " ; "]}, r"Row 1 .* empty label .*Write \[\] for"),
    "missing in a list": Case({"label": [["a"], ["b", None]]}, "Row 1 .* None is no class"),
    "empty in a list": Case({"label": [["a"], ["b", ""]]}, "Row 1 .* '' is no class"),
    "negative": Case({"label": [[1], [-1]]}, "Row 1 .* -1 is no class"),
    "fractions": Case({"label": [[0.9, 0.1], [0.2, 0.8]]}, "Row 0 .* 0.9 is no class"),
    "multi-hot of two lengths": Case({"label": [[0, 0, 1], [0, 1]]}, "Row 0 .* the same length"),
    "other places in the test split": Case({"label": [[0, 1], [1, 1]]},
        "2 places in the training split and 3", test={"label": [[0, 1, 1], [1, 1, 1]]}),
    "lists against places": Case({"label": [[0, 1], [1, 1]]}, "holds places in the training",
        test={"label": [[0], [1]]}),
    "unknown test class": Case({"label": [["a"], ["b"]]}, "Row 1 of the test split .* 'z'",
        test={"label": [["a"], ["z"]]}),
    "unknown place": Case({"label": [[1, 0, 1], [1, 0, 0]]}, "Row 0 of the test split .* '1'",
        test={"label": [[0, 1, 0]]}),
    "all the same": Case({"label": [["a"], ["a"]]}, "the same classes .a.; there is nothing"),
    "never any": Case({"label": [[], []], "n": [1, 2]}, "No training example has any class|holds"),
    "names of places": Case({"label": [[1, 0], [0, 1]]}, "has 3 names, .* 2 places",
        spec={"classes": ["a", "b", "c"]}),
    "names of lists": Case({"label": [["a"], ["b"]]}, "names the places", spec={"classes": ["a"]}),
    "a column of other numbers": Case({"cat": [0, 2], "dog": [1, 1]}, "Row 1 .* '2' in column .cat",
        spec={"label": ["cat", "dog"]}),
    "a gap in a column": Case({"cat": [0, 1], "dog": [1, None]}, "Row 1 .* nothing in column .dog",
        spec={"label": ["cat", "dog"]}),
    "no such column": Case({"cat": [0, 1]}, "no column 'dog'", spec={"label": ["cat", "dog"]}),
    "columns that are not named": Case({"cat": [1, 1], "dog": [0, 1]},
        r'label = \["cat", "dog"\] under'),
    "a sample without a class": Case({"label": [["a"]] * 37 + [["b"], ["c"], ["d"]]},
        "train_limit = 3 .* leaves no example of class", spec={"train_limit": 3}),
}  # fmt: skip

OTHER_TASKS: dict[str, tuple[LabelKind, Case]] = {
    "quantities": ("class", Case({"label": ["0.25", "1.5"]}, 'name = "image-regression" or')),
    "fractions": ("class", Case({"label": [0.25, 1.5]}, 'name = "image-regression" or')),
    "multi-hot": ("class", Case({"label": [[1, 1], [0, 1]]}, 'name = "image-multilabel" or')),
    "lists": ("class", Case({"label": [["a", "b"], ["b"]]}, 'name = "image-multilabel" or')),
    "columns": (
        "class",
        Case({"cat": [1, 1], "dog": [0, 1]}, r'"text-multilabel" .* label = \["cat", "dog"\]'),
    ),
    "boxes": ("class", Case({"bbox": [[1, 2, 3, 4], [1, 2, 3, 4]]}, "object detection, which")),
    "named boxes": (
        "number",
        Case({"bbox": [[1, 2, 3, 4]] * 2}, "object detection, which", spec={"label": "bbox"}),
    ),
    "lists of boxes": ("classes", Case({"label": [[[1, 2, 3, 4]], []]}, "object detection, which")),
    "objects": (
        "class",
        Case({"objects": [{"bbox": [[1, 2]], "category": [0]}] * 2}, "object detection, which is"),
    ),
    "lists of objects": (
        "classes",
        Case({"label": [[{"bbox": [1, 2], "id": 0}], []]}, "object detection, which is not"),
    ),
    "boxes as text": (
        "class",
        Case({"label": ["[{'bbox': [1, 2]}]", "[]"]}, "object detection, which", "csv"),
    ),
    "names of masks": ("class", Case({"label": ["m/1.png", "m/2.png"]}, "segmentation, which")),
    "a mask": ("number", Case({"mask": [[0, 1], [1, 1]]}, "segmentation, which is not supported")),
    "pictures": ("class", Case({"label": [b"\x89PNG", b"\x89PNG"]}, "segmentation, which is not")),
}  # fmt: skip


def prepared(case: Case) -> Case:
    """The case with the columns that need a feature of their own."""
    special: dict[str, tuple[list[Any], Any]] = {
        "STARS": ([0, 2, 1], STARS),
        "MOODS": ([0, 1, 0], MOODS),
        "CLASSES": ([[0, 1], [], [1]], datasets.List(MOODS)),
    }
    name = case.columns.get("label")
    if not isinstance(name, str):
        return case
    values, feature = special[name]
    return Case({"label": values, "feature": feature}, case.expected)


def run(case: Case, kind: LabelKind, folder: Path, good: bool) -> None:
    case = prepared(case)
    if "feature" in case.columns:
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": case.columns["feature"]}
        )
        values = {"text": TEXTS[:3], "label": case.columns["label"]}
        both = datasets.DatasetDict(
            {split: datasets.Dataset.from_dict(values, features) for split in ("train", "test")}
        )
        both.save_to_disk(str(folder / "saved"))
        source = DataSpec(source=str(folder / "saved"))
        if not good:
            with pytest.raises(DataError, match=case.expected):
                load_source(source, Path("/"), kind=kind)
            return
        found = load_source(source, Path("/"), kind=kind)
        labels = found.train["label"][:]
        shown = labels if kind == "number" else label_texts(kind, labels, found.classes)
        assert shown == case.expected
        return
    (check if good else refused)(case, kind, folder)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str, tmp_path: Path) -> None:
    run(NUMBERS[name], "number", tmp_path, True)


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_what_is_no_number_is_refused(name: str, tmp_path: Path) -> None:
    run(BAD_NUMBERS[name], "number", tmp_path, False)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_classes(name: str, tmp_path: Path) -> None:
    run(SEVERAL[name], "classes", tmp_path, True)


@pytest.mark.parametrize("name", BAD_SEVERAL)
def test_what_is_no_list_of_classes_is_refused(name: str, tmp_path: Path) -> None:
    run(BAD_SEVERAL[name], "classes", tmp_path, False)


@pytest.mark.parametrize("name", OTHER_TASKS)
def test_data_of_another_task_name_it(name: str, tmp_path: Path) -> None:
    kind, case = OTHER_TASKS[name]
    run(case, kind, tmp_path, False)
