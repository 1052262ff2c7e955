"""The Map page in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.parts.charts.scatter_map import (
    DENSE,
    MOST_DRAWN,
    corners_of,
    density,
    drawn_rows,
    selection_of,
)
from dashboard.read.maps import lasso_text, positions, within
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
    app.button(key="what_if_selected").click().run()
    assert not app.exception
    assert "set" in app.query_params
    assert f"{number} selected training examples" in words(app)


def test_unknown_ids_are_reported(visit: Any, complete: Study) -> None:
    app = visit(complete, "map")
    app.text_area(key="map_ids").input("train-3 nobody")
    app.button(key="FormSubmitter:select_on_map-Select").click().run()
    assert "No training picture has the id nobody; ignored." in words(app)
    assert "<b>1</b> training" in words(app)
    app.button(key="map_clear").click().run()
    assert "selected_train" not in app.query_params
    assert not [button for button in app.button if button.key == "map_clear"]


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
    # Plotly reads markup in what it draws; the preview sets these as text.
    assert not any("text" in trace or "hovertemplate" in trace for trace in figure(app)["data"])


def test_the_legend_has_one_entry_for_a_class(visit: Any, complete: Study) -> None:
    traces = [trace for trace in figure(visit(complete, "map"))["data"] if "customdata" in trace]
    named = [trace["name"] for trace in traces if trace.get("showlegend", True)]
    assert sorted(named) == sorted(set(complete.dataset.classes))
    assert len(traces) > len(named)  # training and test examples, shown and hidden together


def test_the_selection_is_in_the_address(visit: Any, complete: Study) -> None:
    app = visit(complete, "map", selected="1-3", selected_train="5,7")
    assert "<b>2</b> training and <b>3</b> test" in words(app)
    place = positions(complete, "pca", "cnn", "trak")
    low, high = place["train"].min(axis=0) - 1, place["train"].mean(axis=0)
    box = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    inside = {
        split: np.flatnonzero((at > low).all(axis=1) & (at < high).all(axis=1)).tolist()
        for split, at in place.items()
    }
    app = visit(complete, "map", kind="pca", lasso=lasso_text("pca", box))
    numbers = [f"<b>{len(inside[split])}</b>" for split in ("train", "test")]
    assert f"{numbers[0]} training and {numbers[1]} test" in words(app)
    app = visit(complete, "map", lasso="pca:1,2;<b>")
    assert "lasso must be a line around points" in words(app)


def test_embeddings_have_a_map_of_their_own(visit: Any, small_study: Study) -> None:
    app = visit(small_study, "map", kind="embedding")
    assert "similar embeddings lie close together" in words(app)
    assert points(app) == 360


@pytest.mark.parametrize(
    ("corners", "inside"),
    [
        ([(0, 0), (4, 0), (4, 4), (0, 4)], [True, True, False]),
        ([(0, 0), (4, 0), (4, 4), (2, 1.5), (0, 4)], [True, False, False]),  # a notch
        ([(0, 0), (4, 0), (4, 4), (0, 4)][::-1], [True, True, False]),
    ],
)
def test_what_is_within_a_lasso(corners: Any, inside: list[bool]) -> None:
    points = np.array([[2, 1], [2, 3], [5, 2]])
    assert within(np.array(corners, float), points).tolist() == inside


def test_corners_of_what_plotly_reports() -> None:
    assert corners_of({"lasso": [{"x": [0, 1, 1], "y": [0, 0, 1]}]}) == [(0, 0), (1, 0), (1, 1)]
    box = corners_of({"box": [{"x": [0, 2], "y": [3, 1]}]})
    assert box == [(0, 3), (2, 3), (2, 1), (0, 1)]
    assert corners_of({"lasso": [], "box": []}) is None  # a click


def test_many_points_have_a_density_below_them() -> None:
    points = np.random.default_rng(0).normal(size=(DENSE, 2))
    drawn = density(points)
    counts = np.expm1(np.array(drawn.z, float))
    assert counts.sum() == pytest.approx(DENSE, rel=0.02)


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
