"""The file of a picture and the text of a text example, wherever examples are listed."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dashboard.parts.charts.scatter_map import Layer, Selection, scatter
from dashboard.parts.controls.downloads import as_csv, as_json, rows_as_csv
from dashboard.read.studies import examples, matching
from engine import Study, store
from engine.applications.brittle.supports import find
from engine.applications.brittle.table import as_bytes, brittle_table
from engine.cli.main import main
from engine.cli.printing import one_line
from engine.store import layout
from engine.store.layout import SPLITS
from engine.study.examples import FILE, read_texts_of
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, words


def file_of(split: str, row: int) -> str | None:
    """A name with everything in it; every fifth picture has none."""
    return None if row % 5 == 4 else f"=1+{split}/día [b] 猫/@{row}.png"


@pytest.fixture(scope="module")
def filed(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with files, as if its pictures had been read from folders."""
    study = copy_of(small_study, tmp_path_factory.mktemp("filed") / "study")
    for split in ("train", "test"):
        path = layout.table_file(study.root, split, 0)
        table = store.read_table(path)
        fingerprint = table.schema.metadata[store.FINGERPRINT_KEY.encode()].decode()
        files = [file_of(split, row) for row in range(table.num_rows)]
        place = table.column_names.index(FILE) if FILE in table.column_names else None
        table = table if place is None else table.remove_column(place)
        table = table.append_column(FILE, pa.array(files, pa.string()))
        store.write_table(path, table, fingerprint)
    return study


def test_an_explanation_and_its_files_name_them(filed: Study) -> None:
    explanation = filed.explain(17, k=6)
    assert explanation.file == file_of("test", 17)
    both = explanation.supporting + explanation.opposing
    assert [one.file for one in both] == [file_of("train", one.row) for one in both]
    assert {one.text for one in both} == {None}
    assert json.loads(as_json(explanation, "f00d"))["file"] == explanation.file
    lines = list(csv.DictReader(io.StringIO(as_csv(explanation))))
    assert {line["test_file"] for line in lines} == {f"'{explanation.file}"}
    expected = ["" if one.file is None else f"'{one.file}" for one in both]
    assert [line["file"] for line in lines] == expected


def test_the_terminal_prints_them(filed: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(filed.root), "--test", "#17", "--k", "6"]) == 0
    out = capsys.readouterr().out
    assert f"File {file_of('test', 17)}" in out
    found = filed.explain(17, k=6)
    for one in found.supporting + found.opposing:
        assert (file_of("train", one.row) or "–") in out
    assert main(["whatif", str(filed.root), "--remove", "#1", "--k", "6"]) == 0
    assert "=1+test/día [b] 猫/@" in capsys.readouterr().out


def test_the_table_of_brittle_predictions_has_them(filed: Study) -> None:
    supports = find(filed, at_most=3)
    rows = np.arange(6)
    table = brittle_table(filed, supports, rows=rows)
    assert table["file"].to_pylist() == [file_of("test", row) for row in rows]
    for removed, files in zip(table["removal_rows"], table["removal_files"], strict=True):
        assert files.as_py() == [file_of("train", row) for row in removed.as_py()]
    lines = list(csv.DictReader(io.StringIO(as_bytes(table, "csv").decode())))
    assert lines[0]["file"] == f"'{file_of('test', 0)}"
    assert not any(line["removal_files"].startswith("=") for line in lines)


def test_pages_show_them_and_find_them(filed: Study, visit: Any) -> None:
    explored = visit(filed)
    first = cards(explored)[0]
    assert first["file"] == "@0.png"
    assert f"test-0 ({file_of('test', 0)})" in first["hint"]
    assert "file" not in cards(explored)[4]
    found = examples(filed, "test")
    assert matching(found, {"id": "猫/@1"}).tolist() == [1, *range(10, 14), *range(15, 19)]
    assert (
        matching(found, {"id": "DÍA [B]"}).tolist() == matching(found, {"id": "día [b]"}).tolist()
    )
    for part, row in (("TEST-17", 17), ("/@3.PNG", 3), ("@3.p", 3)):
        assert matching(found, {"id": part}).tolist() == [row]
    explained = visit(filed, "explain", test="test-17")
    assert "=1+test/día [b] 猫/@17.png" in words(explained)
    row = filed.explain(17, k=1).supporting[0].row
    assert cards(explained)[0].get("file", None) == (None if row % 5 == 4 else f"@{row}.png")
    lines = list(csv.DictReader(io.StringIO(rows_as_csv(found, np.arange(5)))))
    assert [line["file"] for line in lines][3:] == [f"'{file_of('test', 3)}", ""]


def test_points_of_the_map_name_them(filed: Study) -> None:
    layer = Layer("test", "test", np.arange(5), "#000000")
    place = {"test": np.zeros((60, 2)), "train": np.zeros((300, 2))}
    both = {split: examples(filed, split, "mlp") for split in SPLITS}
    chosen: Selection = {"train": [], "test": []}
    figure = scatter(place, both, [layer], chosen, None, "class")
    texts = [text for _, _, text in figure.data[0].customdata]
    assert texts[0].split("\n")[:2] == ["test-0", file_of("test", 0)]
    assert len(texts[4].split("\n")) == 3


def test_a_study_from_before_files_were_kept_opens(small_study: Study, tmp_path: Any) -> None:
    study = copy_of(small_study, tmp_path / "old")
    for split in ("train", "test"):
        path = layout.table_file(study.root, split, 0)
        table = store.read_table(path)
        fingerprint = table.schema.metadata[store.FINGERPRINT_KEY.encode()].decode()
        store.write_table(path, table.drop_columns([FILE]), fingerprint)
    assert read_texts_of(study, "test", FILE, [0, 1]) == [None, None]
    assert study.explain(0, k=2).file is None
    assert brittle_table(study, find(study), rows=np.arange(2))["file"].to_pylist() == [None] * 2


# --- texts ----------------------------------------------------------------------------------------


def test_explain_prints_texts(
    text_study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {split: text_study.table(split) for split in ("train", "test")}
    explanation = text_study.explain(0, k=2)
    assert explanation.text == tables["test"]["text"][0]
    assert explanation.file is None
    both = explanation.supporting + explanation.opposing
    assert [one.text for one in both] == [tables["train"]["text"][one.row] for one in both]
    assert main(["explain", str(text_study.root), "--test", "#0", "--k", "2"]) == 0
    out = capsys.readouterr().out
    for text in (explanation.text, *(one.text for one in both)):
        assert text is not None
        assert one_line(text, most=100).rstrip("…") in out
    assert "file" not in out


def test_a_text_is_shortened_to_one_line() -> None:
    assert one_line("a\nb\x1b[31m c") == "a b [31m c"
    assert one_line("  a \n\n b  ", most=10) == "a b"
    assert one_line("word " * 50, most=12) == "word word w…"
