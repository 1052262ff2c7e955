"""Every page of a study whose labels are numbers and whose predictions are never right or wrong."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dashboard.read.live_queries
from dashboard.parts.controls.downloads import as_csv, as_json, rows_as_csv
from dashboard.parts.controls.slice_filters import slider_of
from dashboard.read.columns import memberships
from dashboard.read.live_queries import Workers
from dashboard.read.studies import examples
from engine import Study
from engine.applications.modeldiff.report_file import as_html
from engine.study.capabilities import Capability, missing
from engine.study.removal_sets import keep_set
from tests.builders.page_contents import cards, everything, group_words
from tests.builders.synthetic_study import write_study
from tests.builders.toy_task import own_toy_study

CLASS_WORDS = re.compile(
    r"\b(class(es)?|confus\w+|accurac\w+|margins?|correct|wrong|mistakes?|flips?|true class|odds|"
    r"pictures?|brittle predictions that)\b",
    re.IGNORECASE,
)


@pytest.fixture(autouse=True)
def kept_workers(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> None:
    """Live asks the workers that all tests share, which end."""
    monkeypatch.setattr(dashboard.read.live_queries, "_workers", lambda: workers)


@pytest.fixture(scope="module")
def numbers(toy_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A copy of the toy study with a removal set and a comparison."""
    study = own_toy_study(toy_study, tmp_path_factory.mktemp("numbers") / "study")
    keep_set(study, [1, 2, 3], "three rows")
    study.compare("net", "line")
    return study


PAGES: dict[str, tuple[str, dict[str, str], tuple[Capability, ...], str]] = {
    "overview": ("overview", {}, ("outcomes",), "Mean absolute error"),
    "explore": ("explore", {}, (), "Prediction (40)"),
    "explain nothing": ("explain", {}, (), "Largest errors"),
    "explain": ("explain", {"test": "test-3"}, (), "Raised the predicted number"),
    "explain by another method": ("explain", {"test": "test-3", "method": "hybrid"}, (), "Error"),
    "training nothing": ("training", {}, (), "Most influential"),
    "training": ("training", {"train": "train-5"}, (), "Raises most"),
    "brittle": ("brittle", {}, ("outcomes",), "These predictions cannot"),
    "map": ("map", {}, (), "Label"),
    "map by error": ("map", {"colour": "error"}, (), "Error"),
    "what if nothing": ("what_if", {}, (), "A filter"),
    "what if": ("what_if", {"set": "SET"}, (), "Change of the prediction"),
    "unlearn nothing": ("unlearn", {}, ("unlearning",), "Choose a forget set above"),
    "unlearn": ("unlearn", {"set": "SET"}, ("unlearning",), "Change of the prediction"),
    "compare": ("compare", {"a": "net", "b": "line"}, (), "Direction 1"),
    "compare one example": ("compare", {"pane": "example"}, (), "Error"),
    "compare a hypothesis": (
        "compare",
        {"pane": "hypothesis"},
        ("classes",),
        "The effect of a transformation",
    ),
    "live": ("live", {}, (), "Which text should be explained?"),
    "quality": ("quality", {}, (), "predicted number"),
    "jobs": ("jobs", {}, (), "Jobs"),
    "provenance": ("provenance", {}, (), "the predicted number"),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_works_without_classes(name: str, numbers: Study, visit: Any) -> None:
    view, parameters, lacking, shown = PAGES[name]
    if "set" in parameters:
        parameters = {"set": keep_set(numbers, [1, 2, 3], "three rows").key}
    text = everything(visit(numbers, view, **parameters))
    assert shown.lower() in text.lower()
    for capability in lacking:
        reason = missing(numbers, capability)
        assert reason in text
        text = text.replace(reason, "")
    text = re.sub(r"cannot flip|measured on a class", "", text)
    assert not CLASS_WORDS.findall(text), name


def test_every_page_opens_before_the_data_are_read(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", stage="spec")
    for view in sorted({view for view, *_ in PAGES.values()}):
        assert "cannot be shown" not in everything(visit(study, view)), view


def test_examples_are_filtered_and_ordered_by_numbers(numbers: Study, visit: Any) -> None:
    label = numbers.table("test")["label"].astype(float).to_numpy()
    table = numbers.predictions("test")
    inside = np.flatnonzero((label >= 0) & (label <= 2) & (table["output"].to_numpy() <= 1))
    app = visit(numbers, label="0..2", range="-50..1")
    assert [card["row"] for card in cards(app)] == inside.tolist()
    assert app.slider(key="label_range").value == (0.0, 2.0)
    app = visit(numbers, sort="error")
    order = np.argsort(-np.abs(table["error"].to_numpy()), kind="stable")
    assert [card["row"] for card in cards(app)] == order.tolist()
    app.slider(key="label_range").set_value((-1.0, 1.0)).run()
    assert app.query_params["label"] == "-1..1"


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"label": "Coat"}, "label must be two numbers"),
        ({"label": "3..1"}, "label must be two numbers"),
        ({"range": "nan..1"}, "range must be two numbers"),
        ({"result": "wrong"}, "The filter by result is ignored"),
        ({"predicted": "Coat"}, "This study has no class"),
        ({"sort": "margin"}, "cannot be sorted by"),
    ],
    ids=str,
)
def test_links_that_ask_for_classes_are_answered(
    parameters: dict[str, str], problem: str, numbers: Study, visit: Any
) -> None:
    app = visit(numbers, **parameters)
    assert problem in everything(app)
    assert len(cards(app)) == 40


def test_links_from_before_there_were_other_outputs_still_work(
    complete_study: Study, visit: Any
) -> None:
    app = visit(complete_study, margin="-2..3", sort="-margin")
    now = visit(complete_study, range="-2..3", sort="-output")
    assert cards(app)[0]["row"] == cards(now)[0]["row"]
    assert len(cards(app)) == len(cards(now)) < 40
    app.slider(key="output_range").set_value((-1.0, 3.0)).run()
    assert app.query_params["range"] == "-1..3"
    assert "margin" not in app.query_params
    assert visit(complete_study, "map", colour="margin").query_params["colour"] == "output"


def test_downloads_name_the_output(numbers: Study, complete_study: Study) -> None:
    for study, name, algorithm in (
        (numbers, "prediction", "net"),
        (complete_study, "margin", None),
    ):
        found = examples(study, "test", algorithm or next(iter(study.spec.algorithms)))
        rows = list(csv.DictReader(io.StringIO(rows_as_csv(found, np.arange(3)))))
        outputs = study.predictions("test")["output"]
        assert [float(row[name]) for row in rows] == pytest.approx(outputs[:3].tolist())
    explained = numbers.explain("test-3")
    assert json.loads(as_json(explained, "f"))["output_name"] == "prediction"
    assert len(list(csv.DictReader(io.StringIO(as_csv(explained))))) == 20
    comparison = next(numbers.root.glob("comparisons/*.json")).stem
    report = re.sub(r"<style.*?</style>|<[^>]*>", " ", as_html(numbers, comparison), flags=re.S)
    assert "test-" in report or "Direction" in report
    assert not CLASS_WORDS.findall(report)


def test_captions_name_the_output_that_is_explained(numbers: Study, visit: Any) -> None:
    support, oppose = group_words(visit(numbers, "explain", test="test-3"))
    assert support.startswith("Raised the predicted number.")
    assert oppose.startswith("Lowered the predicted number.")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a", "a, b", "none", "b, c"], [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]),
        (["ab", "b", "a, ab"], [[0, 1, 0], [0, 0, 1], [1, 1, 0]]),
        ([], []),
    ],
    ids=["plain", "names inside names", "no rows"],
)
def test_memberships_are_read_from_texts(names: list[str], wanted: list[list[int]]) -> None:
    import pandas as pd

    classes = ["a", "ab", "b"] if "ab" in names else ["a", "b", "c"]
    found = memberships(pd.Series(names, dtype=object), classes)
    assert found.astype(int).tolist() == wanted


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0],
        [-3.2, 8.7],
        [1e-7, 2e-7],
        [120_000.0, 980_000.0],
        [5.0, 5.0],
        [0.0, 0.0],
        [-1e9, 1e9],
        [2020.0, 2024.0, float("nan")],
    ],
    ids=str,
)
def test_sliders_fit_numbers_of_any_size(values: list[float]) -> None:
    (least, largest), step, shown = slider_of(np.array(values))
    assert least <= np.nanmin(values) <= np.nanmax(values) <= largest
    assert 0 < step <= (largest - least) / 4
    assert (largest - least) / step < 2_000
    assert shown % step != shown % 0
