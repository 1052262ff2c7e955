"""The Map page in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.parts.charts.scatter_map import MOST_DRAWN, drawn_rows, selection_of
from engine.api import Study
from tests.builders.hostile_names import HOSTILE
from tests.builders.page_contents import cards, words
from tests.builders.synthetic_study import write_study


@pytest.fixture
def complete(tmp_path: Path) -> Study:
    return write_study(tmp_path / "map", n_train=60, n_test=24)


def figure(app: AppTest) -> dict[str, Any]:
    (chart,) = app.get("plotly_chart")
    found: dict[str, Any] = json.loads(chart.proto.spec)
    return found


def points(app: AppTest) -> int:
    return sum(len(trace["customdata"]) for trace in figure(app)["data"] if "customdata" in trace)


def test_all_points_are_drawn_in_every_coloring(visit: Any, complete: Study) -> None:
    for colour in ("class", "result", "margin"):
        app = visit(complete, "map", colour=colour)
        assert points(app) == 84
    assert "Circles: 60 training pictures. Diamonds: 24 test" in words(app)
    app = visit(complete, "map", kind="pca")
    assert points(app) == 84


def test_a_class_is_selected_without_a_mouse(visit: Any, complete: Study) -> None:
    app = visit(complete, "map")
    labels = complete.table("train")["label"]
    app.selectbox(key="map_class").select(labels[0])
    app.button(key="FormSubmitter:select_on_map-Select").click().run()
    number = int((labels == labels[0]).sum())
    assert f"<b>{number}</b> training" in words(app)
    assert len(cards(app)) == number
    chosen = [trace.get("selectedpoints") for trace in figure(app)["data"]]
    assert sum(map(len, filter(None, chosen))) == number
    app.button(key="what_if").click().run()
    assert not app.exception
    assert "set" in app.query_params
    assert f"{number} selected on the map" in words(app)


def test_unknown_ids_are_reported(visit: Any, complete: Study) -> None:
    app = visit(complete, "map")
    app.text_area(key="map_ids").input("train-3 nobody")
    app.button(key="FormSubmitter:select_on_map-Select").click().run()
    assert "No training picture has the id nobody; ignored." in words(app)
    assert "<b>1</b> training" in words(app)
    app.button(key="map_clear").click().run()
    assert "<b>0</b> training" in words(app)


def test_the_url_marks_a_point(visit: Any, complete: Study) -> None:
    app = visit(complete, "map", test="test-5")
    assert figure(app)["data"][-1]["name"] == "this example"
    app.button(key="unring").click().run()
    assert "test" not in app.query_params
    assert "no such picture" in words(visit(complete, "map", train="nobody"))
    assert "kind must be one of umap, pca" in words(visit(complete, "map", kind="<b>"))


@pytest.mark.parametrize("stage", ["spec", "data", "predictions"])
def test_before_the_map_is_computed(visit: Any, tmp_path: Path, stage: Any) -> None:
    assert "not drawn yet" in words(visit(write_study(tmp_path / "s", stage=stage), "map"))


def test_hostile_names(visit: Any, tmp_path: Path) -> None:
    app = visit(write_study(tmp_path / "s", classes=HOSTILE, files=HOSTILE), "map")
    texts = [text for trace in figure(app)["data"] for text in trace.get("text", [])]
    assert all("<" not in text.replace("<br>", "") for text in texts)


def test_many_points_are_sampled_and_selected_ones_kept() -> None:
    rows = drawn_rows({"train": 50_000, "test": 10_000}, {"train": [7, 13], "test": [1]})
    assert sum(map(len, rows.values())) <= MOST_DRAWN + 3
    assert np.isin([7, 13], rows["train"]).all()
    few = drawn_rows({"train": 50, "test": 10}, {"train": [], "test": []})
    assert [len(found) for found in few.values()] == [50, 10]


def test_points_from_the_browser() -> None:
    sent: list[dict[str, object]] = [
        {"customdata": ["train", 4]},
        {"customdata": {"0": "test", "1": 2}},
        {"customdata": ["other", 1]},
        {},
    ]
    assert selection_of(sent) == {"train": [4], "test": [2]}
