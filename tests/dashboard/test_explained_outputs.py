"""Explain with every choice of output; scores come from a real worker."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import dashboard.read.live_queries
from dashboard.parts.controls.downloads import snippet
from dashboard.read.live_queries import Workers
from dashboard.read.output_scores import explanation_of_output
from engine import Study, store
from engine.store import layout
from tests.builders.page_contents import cards, group_words, words
from tests.builders.synthetic_study import write_study


@pytest.fixture
def visit(visit: Any, monkeypatch: pytest.MonkeyPatch, workers: Workers) -> Any:
    """As in tests/conftest.py, with the workers of all tests."""
    monkeypatch.setattr(dashboard.read.live_queries, "_workers", lambda: workers)
    return visit


def mistake(study: Study) -> tuple[str, str, str]:
    """A wrong prediction: id, label, predicted class."""
    found = study.predictions("test")
    row = int(np.flatnonzero(~found["correct"])[1])
    return f"test-{row}", str(study.table("test")["label"][row]), str(found["predicted"][row])


def titles(app: AppTest) -> list[str]:
    return [part.value for part in app.html if 'class="dl-title"' in part.value]


def badge_line(app: AppTest) -> str:
    labels: list[str] = [part.proto.popover.label for part in app.get("popover")]
    return next(label for label in labels if "LDS" in label or "checkpoint" in label)


def test_every_choice_is_explained(visit: Any, small_study: Study) -> None:
    test, label, predicted = mistake(small_study)
    app = visit(small_study, "explain", test=test, method="trak")
    app.radio(key="output_choice")
    assert f"Why not “{label}”?" in titles(app)[0]
    assert "output" not in app.query_params
    assert app.radio(key="output_choice").options == [
        f"The true label: {label}",
        f"The predicted class: {predicted}",
        "A class",
        "One class rather than another",
    ]
    default = cards(app)

    def shows(name: str, question: str) -> None:
        assert not app.exception
        assert app.query_params["output"] == name
        assert question in titles(app)[0]
        found = small_study.explain(test, 12, output=name)
        for side, wanted in enumerate((found.supporting, found.opposing)):
            assert [card["row"] for card in cards(app, side)] == [one.row for one in wanted]
        assert badge_line(app).startswith("TRAK, live · LDS of the margin")
        assert "Computed live from 2 of 2 checkpoints, not calibrated" in words(app)

    app.radio(key="output_choice").set_value("predicted").run()
    shows("predicted", f"Why “{predicted}”?")
    assert f"Pulled the model toward “{predicted}”" in group_words(app)[0]
    app.radio(key="output_choice").set_value("{}>{}").run()
    shows(f"{predicted}>{label}", f"Why “{predicted}” rather than “{label}”?")
    assert f"are labeled “{label}”" in group_words(app)[1]
    app.selectbox(key="output_class_0").select(label).run()  # they change places
    shows(f"{label}>{predicted}", f"Why “{label}” rather than “{predicted}”?")
    app.radio(key="output_choice").set_value("class:{}").run()
    app.selectbox(key="output_class_0").select("Bag").run()
    shows("class:Bag", "Why not “Bag”?")
    assert "output=class%3ABag" in cards(app)[0]["href"]
    app.radio(key="output_choice").set_value("margin").run()
    assert "output" not in app.query_params
    assert cards(app) == default


def test_an_output_that_is_the_stored_one_has_its_scores(visit: Any, small_study: Study) -> None:
    row = int(np.flatnonzero(small_study.predictions("test")["correct"])[0])
    app = visit(small_study, "explain", test=f"test-{row}", output="predicted", method="trak")
    plain = visit(small_study, "explain", test=f"test-{row}", method="trak")
    assert [card["row"] for card in cards(app)] == [card["row"] for card in cards(plain)]
    assert badge_line(app) == badge_line(plain)


def test_the_download_is_of_the_chosen_output(
    visit: Any, small_study: Study, workers: Workers
) -> None:
    test, label, predicted = mistake(small_study)
    name = f"{predicted}>{label}"
    visit(small_study, "explain", test=test, output=name)
    row = int(test.removeprefix("test-"))
    found = explanation_of_output(small_study, row, 3, "mlp", "trak", name, "me")
    assert json.dumps(found.to_dict()) == json.dumps(
        small_study.explain(row, 3, output=name).to_dict()
    )
    assert f"output={name!r})" in snippet(small_study, test, 3, "mlp", "trak", name)


def test_names_that_are_none_are_reported(visit: Any, small_study: Study) -> None:
    app = visit(small_study, "explain", test="test-1", output="Cot>Shirt")
    assert "Did you mean &#x27;Coat&gt;Shirt&#x27;?" in words(app)
    assert "Why not" in titles(app)[0]


def test_what_is_missing_is_said_where_it_is_chosen(visit: Any, own_study: Study) -> None:
    path = layout.live_file(own_study.root, "mlp")
    kept = store.read_json(path)
    store.write_json(path, {**kept, "checkpoints": 0, "reason": "it is <b>huge"}, "")
    test, label, _ = mistake(own_study)
    app = visit(own_study, "explain", test=test)
    assert app.radio(key="output_choice").options == [f"The true label: {label}"]
    assert any("it is \\<b>huge" in part.value for part in app.caption)
    assert len(cards(app)) == 12
    app = visit(own_study, "explain", test=test, output="predicted")
    assert "it is &lt;b&gt;huge" in words(app)
    assert "cannot be computed" in words(app)


def test_a_task_with_one_output_has_no_choice(visit: Any, tmp_path: Any) -> None:
    study = write_study(tmp_path / "study")
    path = layout.dataset_file(study.root)
    about = store.read_json(path)
    fingerprint = about["fingerprint"]
    store.write_json(path, {**about, "choices": []}, fingerprint)
    app = visit(study, "explain", test="test-1")
    assert [radio.key for radio in app.radio if radio.key == "output_choice"] == []
    assert "What determines the margin of the true label?" in titles(app)[0]
