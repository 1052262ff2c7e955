"""Examples selected in Explore: kept in the URL, opened as a slice, exported."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pandas as pd
import pytest

from dashboard.location import Location
from dashboard.parts.controls.downloads import rows_as_csv, rows_as_json
from dashboard.read.studies import Examples
from dashboard.slice_parameters import Slice
from engine.api import Study
from tests.builders.page_contents import cards, component, words
from tests.builders.synthetic_study import write_study


def test_a_url_restores_the_selection(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, selected="0-2,5")
    assert component(app, "groups")["selected"] == [0, 1, 2, 5]
    assert "<b>4</b> selected" in words(app)
    assert app.multiselect(key="selected").value == [0, 1, 2, 5]
    app.multiselect(key="selected").unselect(1).run()
    assert app.query_params["selected"] == "0,2,5"
    assert component(app, "groups")["selected"] == [0, 2, 5]
    app.button(key="clear_selection").click().run()
    assert "selected" not in app.query_params
    assert component(app, "groups")["selected"] == []


def test_the_selection_survives_paging_and_can_be_opened(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=250)
    app = visit(study, page="2", selected="7")
    app.button(key="select_page").click().run()
    assert app.query_params["selected"] == "7,120-239"
    app.button(key="open_selection").click().run()
    assert app.query_params["only"] == "7,120-239"
    assert "selected" not in app.query_params
    assert "<b>121</b> / 250" in words(app)
    assert cards(app)[0]["row"] == 7
    assert f"only={quote_plus('7,120-239')}" in cards(app)[0]["href"]
    explain = visit(study, "explain", only="7,120-239", test="test-7")
    assert "<b>1</b> of 121 · 121 picked" in words(explain)
    explain.button(key="next").click().run()
    assert explain.query_params["test"] == "test-120"
    app.button(key="without_only").click().run()
    assert "<b>250</b> / 250" in words(app)


def test_all_of_a_slice_can_be_selected_up_to_the_limit(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=700)
    assert not [button for button in visit(study).button if button.key == "select_slice"]
    app = visit(study, result="wrong")
    wrong = np.flatnonzero(~study.predictions("test")["correct"])
    app.button(key="select_slice").click().run()
    assert component(app, "groups")["selected"] == list(wrong)
    app = visit(study, selected="0-699")
    assert "At most 500" in words(app)
    assert "the maximum" in words(app)


@pytest.mark.parametrize(
    "text", ["40", "-1", "3-1", "a", "1,,2", "<i>x</i>", "9" * 5000, "0-39,40", "²", ""]
)
@pytest.mark.parametrize("name", ["selected", "only"])
def test_invalid_rows_are_reported(visit: Any, complete_study: Study, name: str, text: str) -> None:
    app = visit(complete_study, **{name: text})
    assert f"{name} takes rows 0 to 39" in words(app)
    assert "<i>x</i>" not in words(app)
    assert cards(app)


def test_a_slice_or_a_selection_can_be_exported(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, result="wrong")
    wrong = np.flatnonzero(~complete_study.predictions("test")["correct"])
    labels = [part.proto.popover.label for part in app.get("popover")]
    assert f"Export all {len(wrong)}" in labels
    labels = [
        part.proto.popover.label for part in visit(complete_study, selected="1-2").get("popover")
    ]
    assert "Export 2 selected" in labels

    table = complete_study.table("test").join(complete_study.predictions("test"))
    evil = table.assign(label=["=cmd()"] * len(table))
    found = Examples(evil, pd.Index(evil["id"]), [], {}, {}, {}, "margin")
    lines = list(csv.DictReader(io.StringIO(rows_as_csv(found, np.array([3, 1])))))
    assert [line["row"] for line in lines] == ["3", "1"]
    assert [line["id"] for line in lines] == ["test-3", "test-1"]
    assert lines[0]["label"] == "'=cmd()"
    assert float(lines[0]["margin"]) == pytest.approx(table["output"][3])
    here = Location(
        study=None,
        foreign=None,
        algorithm="cnn",
        method=None,
        slice=Slice(result="wrong"),
        page=1,
        size="large",
        selected=(),
        test=None,
        train=None,
        show="influential",
        k=12,
        problems=(),
    )
    exported = json.loads(rows_as_json(found, np.array([3, 1]), here, "f00d"))
    assert exported["data_fingerprint"] == "f00d"
    assert exported["slice"] == {"result": "wrong"}
    assert [one["id"] for one in exported["examples"]] == ["test-3", "test-1"]
    assert exported["examples"][0]["correct"] is bool(table["correct"][3])


ON_TEST = {"explain_selected", "what_if_selected"}
ON_TRAIN = {"explain_selected", "what_if_selected", "unlearn_selected"}


@pytest.mark.parametrize(
    ("view", "parameters", "keys"),
    [
        ("explain", {"test": "test-1", "selected_train": "3-4"}, ON_TRAIN),
        ("explain", {"test": "test-1", "beside": "test-2", "selected_train": "3-4"}, ON_TRAIN),
        ("map", {"selected_train": "3-4"}, ON_TRAIN),
        ("map", {"selected": "3-4"}, ON_TEST | {"compare_selected"}),
        ("training_set", {"selected_train": "3-4"}, ON_TRAIN),
        ("explore", {"selected": "3-4"}, ON_TEST | {"compare_selected"}),
    ],
)
def test_one_bar_wherever_examples_are(
    visit: Any, complete_study: Study, view: str, parameters: dict[str, str], keys: set[str]
) -> None:
    app = visit(complete_study, view, **parameters)
    assert keys <= {button.key for button in app.button}
    labels = [part.proto.popover.label for part in app.get("popover")]
    assert "Tag" in labels
    assert "Export 2 selected" in labels


def test_the_bar_above_a_list_appears_with_the_selection(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1")
    assert not [button for button in app.button if button.key in ON_TRAIN]
    assert component(app, "groups")["selectable"]
    app = visit(complete_study, "explain", test="test-1", selected_train="3-4")
    assert component(app, "groups")["selected"] == [3, 4]
    app.button(key="clear_selection").click().run()
    assert "selected_train" not in app.query_params
