"""The What-if page in every state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.api import Study
from engine.applications.joint_removal import strongest_together
from engine.running.jobs.queue import jobs
from engine.store import layout
from engine.store.quantities import CHANGE
from engine.study.removal_sets import keep_set, removal_set
from tests.builders.hostile_names import HOSTILE
from tests.builders.kept_replay import keep_replay, keep_smoothness
from tests.builders.page_contents import cards, component_of, words
from tests.builders.synthetic_quality import write_quality
from tests.builders.synthetic_study import write_study


@pytest.fixture
def measured(tmp_path: Path) -> Study:
    return write_quality(write_study(tmp_path / "measured", n_train=60, n_test=24))


@pytest.fixture
def raw(tmp_path: Path) -> Study:
    return write_study(tmp_path / "raw", n_train=60, n_test=24)


def test_the_effect_of_removing_a_class_is_predicted(visit: Any, measured: Study) -> None:
    app = visit(measured, "what_if")
    assert "Which training data?" in words(app)
    labels = measured.table("train")["label"].to_numpy()
    app.selectbox(key="removed_class").select(labels[0]).run()
    app.button(key="ask").click().run()
    assert not app.exception
    found = measured.counterfactual(np.flatnonzero(labels == labels[0]).tolist())
    shown = words(app)
    assert "This would remove every example of" in shown
    assert "Predicted effect by class" in shown
    assert f"<dd>{len(found.flips)}<small>of {len(found.change)} predicted classes" in shown
    assert len(cards(app)) == min(24, len(found.removed))
    assert len(cards(app, 0, gallery=1)) == len(found.strongest(-1, 24))
    assert len(cards(app, 1, gallery=1)) == len(found.strongest(1, 24))
    again = visit(measured, "what_if", set=app.query_params["set"])
    assert "Predicted effect by class" in words(again)


def test_uncalibrated_scores_only_rank(visit: Any, raw: Study) -> None:
    kept = keep_set(raw, [1, 2, 3], "three")
    shown = words(visit(raw, "what_if", set=kept.key))
    assert "Uncalibrated" in shown
    assert "predicted classes change" not in shown


def test_pasted_ids(visit: Any, raw: Study) -> None:
    app = visit(raw, "what_if")
    app.segmented_control(key="by").select("ids").run()
    app.text_area(key="pasted_ids").input("train-3, 7 nobody <b>").run()
    assert "No training picture has the id nobody, &lt;b&gt;; ignored." in words(app)
    app.button(key="ask").click().run()
    assert "2 chosen by id" in words(app)


def test_by_filter_at_random_and_by_supporters(visit: Any, raw: Study) -> None:
    app = visit(raw, "what_if")
    app.segmented_control(key="by").select("filter").run()
    assert app.button(key="ask").disabled
    app.text_input(key="f_id").input("train-1").run()
    app.selectbox(key="which").select("random").run()
    app.button(key="ask").click().run()
    assert "11 random of 11 id train-1 (seed 0)" in words(app)
    app = visit(raw, "what_if", test="test-4")
    app.segmented_control(key="by").select("supporters").run()
    app.button(key="ask").click().run()
    assert "12 strongest supporters of test picture test-4" in words(app)
    assert len(cards(app)) == 12


def test_supporters_that_do_most_together(visit: Any, own_study: Study) -> None:
    app = visit(own_study, "what_if", test="#4")
    app.segmented_control(key="by").select("supporters").run()
    app.selectbox(key="supporters_chosen").select("together").run()
    found = strongest_together(own_study, 4, 12)
    assert f"Estimated effect of removing them: <b>{found.ratio:.2f} times</b>" in words(app)
    app.button(key="ask").click().run()
    assert not app.exception
    assert "12 supporters of test picture" in words(app)
    assert "that do most together" in words(app)
    assert removal_set(own_study, app.query_params["set"]).rows.tolist() == sorted(found.rows)


def test_sets_are_not_chosen_together_without_live_checkpoints(visit: Any, raw: Study) -> None:
    app = visit(raw, "what_if", test="test-4")
    app.segmented_control(key="by").select("supporters").run()
    assert "supporters_chosen" not in [box.key for box in app.selectbox]


def test_explain_links_to_what_if(visit: Any, raw: Study) -> None:
    app = visit(raw, "explain", test="test-4")
    app.button(key="what_if").click().run()
    assert not app.exception
    assert "strongest supporters of test picture test-4" in words(app)


def test_invalid_sets_are_reported(visit: Any, raw: Study) -> None:
    shown = words(visit(raw, "what_if", set="../../x"))
    assert "has no removal set" in shown
    assert "Which training data?" in shown


def test_without_a_recipe_the_page_explains_what_to_add(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    spec = layout.spec_file(study.root).read_text()
    layout.spec_file(study.root).write_text(
        spec.replace("[algorithms.cnn]", '[algorithms.cnn]\nweights=["a"]')
    )
    kept = keep_set(study, [1, 2, 3], "three")
    app = visit(Study.open(study.root), "what_if", set=kept.key)
    assert "Predicted effect by class" in words(app)
    assert "Add the recipe" in words(app)
    assert not [button for button in app.button if button.key == "verify"]


def test_a_typed_number_counts_even_if_clicked_at_once(
    visit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.running.jobs.queue.start_runner", lambda study: None)
    study = write_study(tmp_path / "s", n_train=60, n_test=24)
    app = visit(study, "what_if", set=keep_set(study, [1, 2, 3], "three").key)
    app.number_input(key="seeds").set_value(2)
    app.button(key="verify").click().run()
    (job,) = jobs(study.root, active=True)
    assert (job.kind, job.parameters["seeds"]) == ("verify", 2)


@pytest.mark.parametrize("stage", ["spec", "data", "predictions"])
def test_before_there_are_scores(visit: Any, tmp_path: Path, stage: Any) -> None:
    shown = words(visit(write_study(tmp_path / "s", stage=stage), "what_if"))
    assert "as soon as there are scores" in shown


def test_hostile_names(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", classes=HOSTILE, files=HOSTILE)
    kept = keep_set(study, [1, 2, 3], "<img src=x onerror=alert(1)>")
    shown = words(visit(study, "what_if", set=kept.key))
    assert "<img src=x" not in shown


def test_exact_changes_stand_beside_the_estimate(visit: Any, measured: Study) -> None:
    kept = keep_set(measured, [1, 2], "two")
    assert "Exactly, by replay" not in str(
        component_of(visit(measured, "what_if", set=kept.key), "groups")
    )
    scores = np.zeros((5, 60), np.float32)
    scores[:, 1] = (0.5, 0.5, 0.5, 0.5, -1.0)
    scores[:, 2] = 0.25
    keep_replay(measured, 7, scores)
    keep_smoothness(measured, 0.2)
    app = visit(measured, "what_if", set=kept.key)
    (group,) = next(
        found["groups"]
        for found in component_of(app, "groups")
        if found["groups"][0]["title"] == "Exactly, by replay"
    )
    (card,) = group["items"]
    assert card["row"] == 7
    assert card["score"] == "−0.450"
    assert card["tag"] == "falls in 4 of 5"
    estimate = measured.counterfactual([1, 2]).change[7]
    assert card["note"] == f"estimate {CHANGE.text(estimate)}"
    assert "−0.750 to +0.750" in card["hint"]
    assert "Smoothness 0.20. Training is not smooth" in group["words"]
