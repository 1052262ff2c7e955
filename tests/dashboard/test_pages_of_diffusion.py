"""Every page of a study of diffusion works, or says what it lacks."""

from __future__ import annotations

import json
from typing import Any

import pytest

import dashboard.read.live_queries
from dashboard.read.live_queries import Workers
from engine import Study
from engine.cli.main import main
from engine.study.capabilities import Capability, missing
from engine.study.removal_sets import keep_set
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, everything


@pytest.fixture(autouse=True)
def kept_workers(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> None:
    """Live asks the workers that all tests share, which end."""
    monkeypatch.setattr(dashboard.read.live_queries, "_workers", lambda: workers)


@pytest.fixture(scope="module")
def own(squares_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A copy of the study with a removal set."""
    study = copy_of(squares_study, tmp_path_factory.mktemp("diffusion") / "study")
    keep_set(study, [1, 2, 3], "three pictures")
    return study


PAGES: dict[str, tuple[str, dict[str, str], tuple[Capability, ...], str]] = {
    "overview": ("overview", {}, ("outcomes",), "20"),
    "explore": ("explore", {}, (), "denoising"),
    "training set": ("training_set", {}, (), "96"),
    "explain": ("explain", {"test": "test-3"}, (), "Which training pictures support this one?"),
    "explain timesteps": (
        "explain",
        {"test": "test-3", "output": "timesteps:1-5"},
        (),
        "Which training pictures support timesteps 1-5?",
    ),
    "training": ("training", {"train": "train-5"}, (), "denois"),
    "brittle": ("brittle", {}, ("outcomes",), ""),
    "map": ("map", {}, (), ""),
    "what if": ("what_if", {"set": "SET"}, (), "denoising"),
    "unlearn": ("unlearn", {"set": "SET"}, (), "pictures themselves"),
    "compare": ("compare", {}, (), ""),
    "live": ("live", {}, (), "picture"),
    "quality": ("quality", {}, (), "denoising"),
    "jobs": ("jobs", {}, (), "Jobs"),
    "provenance": ("provenance", {}, (), "diffusion"),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_works(name: str, own: Study, visit: Any) -> None:
    view, parameters, lacking, shown = PAGES[name]
    if "set" in parameters:
        parameters = {"set": keep_set(own, [1, 2, 3], "three pictures").key}
    app = visit(own, view, **parameters)
    text = everything(app)
    assert not app.exception
    assert shown.lower() in text.lower()
    for capability in lacking:
        assert missing(own, capability) in text


def test_what_is_known_of_a_picture_is_its_loss(
    own: Study, visit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is predicted of it that a label could tell."""
    error = -own.predictions("test")["output"][3]
    words = f"loss {error:.3g}"
    assert cards(visit(own, "explore"))[3]["note"].startswith(words)
    page = everything(visit(own, "explain", test="test-3"))
    assert f"for test-3, {words}" in page
    assert "mean squared" in page
    assert "predicted 0" not in page.lower()
    assert "made models denoise it better." in page
    assert main(["explain", str(own.root), "--test", "test-3"]) == 0
    assert f"test-3, {words}" in capsys.readouterr().out


def test_the_legend_of_the_map_has_colors_of_its_own(own: Study, visit: Any) -> None:
    """Plotly draws the entry of a trace that numbers color in black, on dark ground, too."""
    app = visit(own, "map")
    traces = json.loads(app.get("plotly_chart")[0].proto.spec)["data"]
    listed = [one for one in traces if one.get("showlegend", True) and one["type"] == "scatter"]
    assert [one["name"] for one in listed] == ["training", "test"]
    assert all(isinstance(one["marker"]["color"], str) for one in listed)


def test_examples_are_pictures_with_classes_to_filter_by(own: Study, visit: Any) -> None:
    app = visit(own, "explore")
    assert len(cards(app)) == 20
    assert "class" in everything(app).lower()


def test_a_range_of_timesteps_is_chosen_by_a_slider(own: Study, visit: Any) -> None:
    app = visit(own, "explain", test="test-3", output="timesteps:1-5")
    slider = app.slider(key="output_range")
    assert (slider.value, slider.min, slider.max) == ((1, 5), 1, 50)
    slider.set_value((11, 30)).run()
    assert app.query_params["output"] == "timesteps:11-30"
