"""Explain for pictures that the models made: frames, groups, and what they look like."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

import dashboard.read.live_queries
from dashboard.parts.gallery import copy_or_cause
from dashboard.read.live_queries import Workers
from dashboard.read.picture_urls import frames_url
from dashboard.routes import routes
from engine import Study
from engine.applications.verification.made import read_made
from engine.store.quantities import CHANGE
from engine.study.group_sums import sums_by_group
from engine.study.nearest_values import Nearest, nearest_in_values
from engine.study.removal_sets import keep_set
from engine.study.trajectories import read_trajectory
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, everything, words

MADE, HELD_OUT = "seed-7-by-1", "test-0"


@pytest.fixture(autouse=True)
def kept_workers(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> None:
    """Live asks the workers that all tests share, which end."""
    monkeypatch.setattr(dashboard.read.live_queries, "_workers", lambda: workers)


def test_the_slider_explains_the_timesteps_around_a_frame(made_study: Study, visit: Any) -> None:
    app = visit(made_study, "explain", test=MADE)
    slider = app.select_slider(key="frame")
    assert slider.value == "finished"
    assert [one["row"] for one in cards(app)][:3] == rows_of(made_study, None)
    for stop, steps in (("50", "40-50"), ("1", "1-14"), ("28", "15-39")):
        app.select_slider(key="frame").set_value(stop).run()
        assert app.query_params["output"] == f"timesteps:{steps}"
        assert f"Which training pictures support timesteps {steps}?" in everything(app)
        assert [one["row"] for one in cards(app)][:3] == rows_of(made_study, f"timesteps:{steps}")
    assert "Seen at timestep 28" in everything(app)
    app.select_slider(key="frame").set_value("finished").run()
    assert "output" not in app.query_params


def rows_of(study: Study, output: str | None) -> list[int]:
    return [one.row for one in study.explain(MADE, 3, output=output).supporting]


def test_a_range_chosen_by_name_is_shown_by_the_nearest_frame(
    made_study: Study, visit: Any
) -> None:
    app = visit(made_study, "explain", test=MADE, output="timesteps:20-30")
    assert app.select_slider(key="frame").value == "28"


def test_held_out_pictures_have_no_frames(made_study: Study, visit: Any) -> None:
    app = visit(made_study, "explain", test=HELD_OUT)
    assert not app.get("select_slider")
    assert "Copy or cause?" not in everything(app)
    assert "of the support comes from" in everything(app)


def test_groups_and_nearest_pictures(made_study: Study, visit: Any) -> None:
    app = visit(made_study, "explain", test=MADE)
    text = everything(app)
    assert "of the support comes from" in text
    row = made_study.explain(MADE).row
    found = nearest_in_values(made_study, row)
    assert found is not None
    near = cards(app, gallery=1)
    assert [one["row"] for one in near] == found.rows[: len(near)].tolist()
    assert "No copy: the nearest training picture" in text
    assert len(cards(app, group=1, gallery=1)) == len(near)


def test_a_copy_is_pointed_out(
    made_study: Study, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Nearest(np.arange(50), np.linspace(0.01, 1, 50))
    monkeypatch.setattr(copy_or_cause, "nearest", lambda *_: copy)
    text = everything(visit(made_study, "explain", test=MADE))
    assert "Memorized? The nearest training picture, train-0, is at 2% of the mean" in text


def test_two_beside_each_other_say_what_training_did(made_study: Study, visit: Any) -> None:
    text = everything(visit(made_study, "explain", test=MADE, beside=HELD_OUT))
    assert text.count("made models denoise it better.") == 2
    assert "true label" not in text


def test_columns_of_the_test_split_alone_are_no_filters_of_the_other(
    made_study: Study, visit: Any
) -> None:
    assert "origin: made (8)" in options(visit(made_study, "explore"))
    app = visit(made_study, "training_set")
    assert not any("origin" in one for one in options(app))
    assert any("class: left" in one for one in options(app))
    followed = visit(made_study, "training_set", group="origin=made")
    assert not followed.exception
    assert "0 / 96" in everything(followed)


def options(app: Any) -> list[str]:
    return list(app.selectbox(key="group").options)


def test_frames_come_as_one_sheet(made_study: Study, squares_study: Study) -> None:
    client = TestClient(Starlette(routes=routes(made_study.root)))
    way = read_trajectory(made_study, 5)
    assert way is not None
    answer = client.get(frames_url(made_study, 5))
    sheet = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert sheet.shape == (16, 24)
    np.testing.assert_array_equal(sheet[:8, 8:16], way.frames[1, 0])
    np.testing.assert_array_equal(sheet[8:, 16:], way.denoised[2, 0])
    assert "immutable" in answer.headers["cache-control"]
    assert client.get(frames_url(made_study, 8)).status_code == 404
    assert client.get(frames_url(squares_study, 0)).status_code == 404


def test_influence_over_the_timesteps_on_request(made_study: Study, visit: Any) -> None:
    app = visit(made_study, "explain", test=MADE)
    assert "dl-multiples" not in words(app)
    app.button(key="over_timesteps").click().run()
    assert app.query_params["over"] == "timesteps"
    charts = re.findall(r'class="dl-steps" role="img" aria-label="([^"]*)"', words(app))
    strongest = [one["row"] for one in cards(app)][:6]
    assert [one.split(",")[0] for one in charts[:6]] == [f"train-{row}" for row in strongest]
    assert all(f"by timesteps: {name}" in charts[0] for name in ["40-50"])
    assert [one.split(",")[0] for one in charts[-2:]] in (["left", "right"], ["right", "left"])
    # A picture that was held out has no frames: the timesteps are cut in equal parts.
    held_out = visit(made_study, "explain", test=HELD_OUT, over="timesteps")
    assert "by timesteps: 48-50" in words(held_out)


def test_what_if_shows_the_same_seeds_with_and_without(
    made_study: Study, visit: Any, tmp_path: Path
) -> None:
    own = copy_of(made_study, tmp_path / "own")
    removed = [one.row for one in own.explain(MADE, 5).supporting]
    key = keep_set(own, removed, "five supporters").key
    assert "The same seeds" not in words(visit(own, "what_if", set=key))
    tests = [f"seed-{seed}-by-0" for seed in (6, 7)]
    verified = own.verify(removed, tests=tests, seeds=1, workers=0)
    found = read_made(own, verified)
    assert found is not None
    shown = words(visit(own, "what_if", set=key)).partition("The same seeds")[2]
    order = [int(found.seeds[place]) for place in np.argsort(-found.change)]
    assert re.findall(r"</b> seed (\d+)", shown) == [str(seed) for seed in order]
    pictures = re.findall(r"data:image/png;base64,([^\"]*)", shown)
    assert len(pictures) == 8
    place = int(np.argmax(found.change))
    for text, wanted in zip(pictures, (found.with_all, found.without), strict=False):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        np.testing.assert_array_equal(pixels, wanted[0, place, 0])
    change = verified.outcomes[0].change
    assert f"denoising {CHANGE.text(change)}" in shown


def test_programs_get_the_same(made_study: Study) -> None:
    client = TestClient(Starlette(routes=routes(made_study.root)))
    found = client.get(f"/api/explain?test={MADE}&k=4").json()
    row = made_study.explain(MADE).row
    (sums,) = sums_by_group(made_study, made_study.scores([row])[0]).values()
    assert [one["group"] for one in found["groups"]] == list(sums.names)
    assert found["groups"][0]["support"]["value"] == pytest.approx(sums.support[0])
    frames = [(one["timestep"], one["output"]) for one in found["made"]["frames"]]
    assert frames == [(50, "timesteps:40-50"), (28, "timesteps:15-39"), (1, "timesteps:1-14")]
    near = nearest_in_values(made_study, row)
    assert near is not None
    assert [one["row"] for one in found["made"]["nearest"]] == near.rows[:4].tolist()
    assert found["made"]["memorized"] is near.memorized
    assert client.get(f"/api/explain?test={HELD_OUT}").json()["made"] is None
