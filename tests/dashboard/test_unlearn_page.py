"""The Unlearn page in every state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.api import Study
from engine.applications.unlearning.audit_record import Audit
from engine.running.jobs.kinds import KINDS, Kind
from engine.running.jobs.queue import jobs
from engine.store import layout
from engine.store.quantities import KLOM
from engine.study.removal_sets import keep_set
from tests.builders.hostile_names import HOSTILE
from tests.builders.page_contents import cards, words
from tests.builders.synthetic_audit import NEAR, write_audit
from tests.builders.synthetic_quality import write_quality
from tests.builders.synthetic_study import write_study

FORGET = list(range(2, 40, 3))


@pytest.fixture
def measured(tmp_path: Path) -> Study:
    return write_quality(write_study(tmp_path / "measured", n_train=80, n_test=24))


@pytest.fixture
def audited(measured: Study) -> Audit:
    return write_audit(measured, FORGET)


@pytest.fixture
def raw(tmp_path: Path) -> Study:
    return write_study(tmp_path / "raw", n_train=60, n_test=24)


@pytest.fixture
def kept(measured: Study) -> str:
    return keep_set(measured, FORGET, "some of them").key


# --- choosing the forget set ----------------------------------------------------------------------


def test_nothing_chosen_yet(visit: Any, raw: Study) -> None:
    app = visit(raw, "unlearn")
    assert "What should be forgotten?" in words(app)
    assert "All audits" not in words(app)
    app.segmented_control(key="by").select("random").run()
    app.text_input(key="set_name").input("My set").run()
    app.button(key="ask").click().run()
    assert not app.exception
    assert "My set" in words(app)
    assert "Predicted effect by class" in words(app)
    again = visit(raw, "unlearn")
    again.segmented_control(key="by").select("kept").run()
    again.button(key="ask").click().run()
    assert again.query_params["set"] == app.query_params["set"]


def test_a_principal_direction(visit: Any, raw: Study) -> None:
    app = visit(raw, "unlearn")
    assert (
        "direction" not in app.segmented_control(key="by").options
    )  # no principal directions are stored
    along = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    write_vectors(raw, along)
    app = visit(raw, "unlearn")
    app.segmented_control(key="by").select("direction").run()
    app.number_input(key="direction_of").set_value(3).run()
    app.button(key="ask").click().run()
    assert "6 pictures at the positive end of principal direction 3" in words(app)


def write_vectors(study: Study, along: np.ndarray) -> None:
    from engine import store

    path = layout.train_vectors_file(study.root, "cnn", "trak", 0)
    store.write_tensors(path, {"vectors": along}, "synthetic")


@pytest.mark.parametrize(
    ("text", "message", "number"),
    [
        ("train-3, 7 nobody <b>", "No training picture has the id nobody, &lt;b&gt;; ignored.", 2),
        ("3 train-3 3", "2 repeated names; each picture counts once.", 1),
        (" ,, ; ", "This list names no training picture.", 0),
    ],
)
def test_unknown_and_duplicate_ids_are_reported(
    visit: Any, raw: Study, text: str, message: str, number: int
) -> None:
    app = visit(raw, "unlearn")
    app.segmented_control(key="by").select("ids").run()
    assert app.button(key="ask").disabled
    app.text_area(key="pasted_ids").input(text).run()
    assert message in words(app)
    assert app.button(key="ask").disabled == (number == 0)
    if number:
        assert app.button(key="ask").label == f"Forget these {number}"


def test_ids_from_a_file(visit: Any, raw: Study) -> None:
    app = visit(raw, "unlearn")
    app.segmented_control(key="by").select("ids").run()
    file = app.get("file_uploader")[0]
    file.upload("ids.csv", b"id,label\ntrain-1,x\n5,y\n", "text/csv").run()
    assert app.button(key="ask").label == "Forget these 2"
    app.get("file_uploader")[0].set_value([]).upload("ids.csv", b"\xff\xfe\x00", "text/csv").run()
    assert "cannot be read as UTF-8 text" in words(app)


def test_forgetting_a_full_class_or_everything_is_refused(visit: Any, raw: Study) -> None:
    labels = raw.table("train")["label"].to_numpy()
    whole = keep_set(raw, np.flatnonzero(labels == labels[0]).tolist(), "a class").key
    shown = words(visit(raw, "unlearn", set=whole))
    assert f"every training example of class &#x27;{labels[0]}&#x27;" in shown
    assert "Predicted effect" not in shown
    app = visit(raw, "unlearn")
    app.segmented_control(key="by").select("ids").run()
    app.text_area(key="pasted_ids").input(" ".join(map(str, range(60)))).run()
    app.button(key="ask").click().run()
    assert "all 60 training examples, which leaves nothing" in words(app)


def test_invalid_links_are_reported(visit: Any, measured: Study, audited: Audit, kept: str) -> None:
    assert "has no removal set" in words(visit(measured, "unlearn", set="../../x"))
    wrong = {"pane": "<b>", "on": "moon", "audit": "none", "unlearned_by": "magic"}
    shown = words(visit(measured, "unlearn", set=kept, **wrong))
    for message in ("not “&lt;b&gt;”", "“moon”", "no audit “none”", "method “magic”"):
        assert message in shown


# --- predicted effect -----------------------------------------------------------------------------


def test_the_effect_is_predicted_before_anything_runs(visit: Any, measured: Study) -> None:
    rows = [1, 5, 9]
    app = visit(measured, "unlearn", set=keep_set(measured, rows, "three").key)
    found = measured.counterfactual(rows)
    shown = words(app)
    assert "Predicted effect by class" in shown
    assert f"<dd>{len(found.flips)}<small>of {len(found.change)} predicted classes" in shown
    assert len(cards(app)) == 3
    assert app.button(key="predict")
    assert not jobs(measured.root)


def test_predicted_margins_of_the_forgotten(visit: Any, small_study: Study, tmp_path: Path) -> None:
    import shutil

    from engine.running.jobs.kinds import kind

    study = Study.open(shutil.copytree(small_study.root, tmp_path / "s"))
    key = keep_set(study, FORGET, "some").key
    request = kind("predict").checked(study, {"forget": FORGET})
    kind("predict").work(study, request, lambda done, total, what: None)
    app = visit(study, "unlearn", set=key)
    (first, *_) = cards(app, 0, gallery=1)
    assert "→" in first["note"]
    assert first["score"].startswith("−")  # the largest predicted drop comes first


# --- the audit ------------------------------------------------------------------------------------


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs are queued, but no runner starts them."""
    started: list[Any] = []
    monkeypatch.setattr("engine.running.jobs.queue.start_runner", started.append)
    return started


def test_the_form_shows_the_cost_and_submits_a_job(visit: Any, raw: Study, idle: list[Any]) -> None:
    key = keep_set(raw, FORGET, "some").key
    app = visit(raw, "unlearn", set=key, pane="audit")
    app.multiselect(key="unlearn_methods").set_value(["finetune"]).run()
    app.number_input(key="unlearn_models").set_value(20).run()
    shown = words(app)
    assert "Trains 52 models" in shown  # 20 originals, 20 oracles, 12 for selection
    assert "training 5 more" in shown  # 5 % of (20 + 12 · 6) models
    assert "No optimizer state is needed" in shown
    app.number_input(key="unlearn_models").set_value(24)  # clicked before the page is redrawn
    app.button(key="unlearn").click().run()
    (job,) = jobs(raw.root)
    assert job.parameters["forget"] == FORGET
    assert (job.parameters["models"], job.parameters["methods"]) == (24, ["finetune"])
    assert job.parameters["budget"] == 0.05
    assert "Unlearn 13 pictures and audit" in words(app)
    assert "You can close the browser" in words(app)
    assert f"cancel-{job.id}" in [button.key for button in app.button]


def test_an_audit_needs_a_method(visit: Any, raw: Study) -> None:
    key = keep_set(raw, FORGET, "some").key
    app = visit(raw, "unlearn", set=key, pane="audit")
    app.multiselect(key="unlearn_methods").set_value([]).run()
    assert app.button(key="unlearn").disabled
    assert "Choose at least one method" in words(app)


def test_an_interrupted_audit_resumes(visit: Any, raw: Study, idle: list[Any]) -> None:
    from engine.applications.unlearning.oracles import oracle_file
    from engine.applications.unlearning.rows import rows_of
    from engine.running.jobs.queue import cancel, submit
    from tests.builders.synthetic_audit import write

    number = submit(raw, "unlearn", {"forget": FORGET, "models": 20})
    cancel(raw.root, number)
    forget = tuple(FORGET)
    for place in range(7):
        path = oracle_file(raw, "cnn", forget, place)
        write(path, {"rows": rows_of(raw, forget).all})
    key = keep_set(raw, FORGET, "some").key
    app = visit(raw, "unlearn", set=key, pane="audit")
    assert "Cancelled" in words(app)
    assert "7 more exist already and are reused" in words(app)
    app.button(key=f"retry-{number}").click().run()
    assert [one.status for one in jobs(raw.root)] == ["waiting", "cancelled"]


def test_an_audit_is_shown(visit: Any, measured: Study, audited: Audit, kept: str) -> None:
    app = visit(measured, "unlearn", set=kept)
    shown = words(app)
    assert "SCRUB: on the forget set, models" in shown  # the best method
    assert "Forgotten examples: distance from retrained models" in shown
    scrub, floor = audited.of("scrub").forget.at_half.mean, audited.floor["forget"].mean
    assert KLOM.interval(scrub) in shown
    assert KLOM.interval(floor) in shown
    assert "N = 20 unlearned and 20 retrained models" in shown
    assert "Doing nothing" in shown
    assert shown.count('class="dl-mark"') == len(NEAR) - 1
    app.segmented_control(key="on").select("test").run()
    assert "Test examples: distance from retrained models" in words(app)
    app.selectbox(key="unlearned_by").select("finetune").run()
    assert "Fine-tuning: on the forget set, models" in words(app)
    again = visit(measured, "unlearn", **app.query_params)
    assert "Fine-tuning: on the forget set, models" in words(again)


def test_before_and_after(visit: Any, measured: Study, audited: Audit, kept: str) -> None:
    app = visit(measured, "unlearn", set=kept, pane="before", unlearned_by="scrub")
    shown = words(app)
    assert "Retrained" in shown
    found = cards(app)
    assert len(found) == len(FORGET)
    assert all("→" in card["note"] and "retrained" in card["score"] for card in found)
    bars = [card["bar"] for card in found]
    assert min(bars) < 0.9
    assert app.get("plotly_chart")


def test_without_an_audit_the_other_panes_say_where_to_start(visit: Any, raw: Study) -> None:
    key = keep_set(raw, [1, 2], "two").key
    assert "No audit yet" in words(visit(raw, "unlearn", set=key, pane="before"))


def test_all_audits_are_listed_and_can_be_opened(
    visit: Any, measured: Study, audited: Audit
) -> None:
    app = visit(measured, "unlearn")
    app.button(key=f"open_{audited.id}").click().run()
    assert "SCRUB: on the forget set, models" in words(app)
    assert "shown above" in " ".join(button.label for button in app.button)


# --- the model ------------------------------------------------------------------------------------


def test_a_model_is_unlearned_by_a_job_and_downloaded(
    visit: Any, small_study: Study, tmp_path: Path, idle: list[Any]
) -> None:
    import shutil

    from engine import store
    from engine.running.jobs.kinds import kind

    study = Study.open(shutil.copytree(small_study.root, tmp_path / "s"))
    key = keep_set(study, FORGET, "some").key
    app = visit(study, "unlearn", set=key, pane="model")
    app.selectbox(key="model_method").select("ascent").run()
    app.button(key="certify").click().run()
    (job,) = jobs(study.root)
    assert job.parameters["method"] == "ascent"
    assert "Unlearn checkpoint 0 by Gradient ascent" in words(app)
    done = kind("certify").work(study, job.parameters, lambda done, total, what: None)
    app.run()
    path = next(study.root.rglob(done["model"]))
    assert store.file_digest(path) in words(app)
    assert "download_model" in str(app.get("download_button"))


def test_without_a_recipe_effects_are_predicted_but_not_audited(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_train=60)
    spec = layout.spec_file(study.root).read_text()
    layout.spec_file(study.root).write_text(
        spec.replace("[algorithms.cnn]", '[algorithms.cnn]\nweights=["a"]')
    )
    key = keep_set(study, [1, 2, 3], "three").key
    app = visit(Study.open(study.root), "unlearn", set=key)
    assert "Predicted effect by class" in words(app)
    app = visit(Study.open(study.root), "unlearn", set=key, pane="audit")
    assert "The effect can be predicted, but not audited" in words(app)
    assert "Add the recipe" in words(app)
    assert not [button for button in app.button if button.key == "unlearn"]
    app = visit(Study.open(study.root), "unlearn", set=key, pane="model")
    assert "no checkpoint 0 to unlearn from" in words(app)


# --- links to this page ---------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "parameters"), [("explain", {"test": "test-4"})])
def test_other_pages_link_to_unlearn(visit: Any, raw: Study, view: str, parameters: Any) -> None:
    app = visit(raw, view, **parameters)
    app.button(key="forget").click().run()
    assert not app.exception
    assert "Predicted effect by class" in words(app)
    assert "strongest supporters of test picture test-4" in words(app)


@pytest.mark.parametrize("stage", ["spec", "data", "predictions"])
def test_before_there_are_scores(visit: Any, tmp_path: Path, stage: Any) -> None:
    shown = words(visit(write_study(tmp_path / "s", stage=stage), "unlearn"))
    assert "as soon as there are scores" in shown


def test_hostile_names(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_train=80, classes=HOSTILE, files=HOSTILE)
    write_audit(study, [1, 2, 3], models=4)
    kept = keep_set(study, [1, 2, 3], "<img src=x onerror=alert(1)>")
    for pane in ("effect", "audit", "before", "model"):
        assert "<img src=x" not in words(visit(study, "unlearn", set=kept.key, pane=pane))


def test_the_kinds_of_jobs_are_registered() -> None:
    assert isinstance(KINDS["predict"], Kind)
    assert isinstance(KINDS["certify"], Kind)
