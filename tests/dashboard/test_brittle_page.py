"""The Brittle page in every state, on a small real study in which predictions can be verified."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboard.parts.charts.flip_curve import flip_curve
from dashboard.read.supports import Query, matching
from engine import Study
from engine.applications.brittle.supports import Supports, find, verify_brittle
from engine.running.jobs.queue import jobs
from engine.store import layout
from engine.store.quantities import FLIP
from engine.study.tags import read_tags
from tests.build.test_build import change
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.kept_replay import keep_replay
from tests.builders.page_contents import cards, words
from tests.builders.synthetic_study import write_study


@pytest.fixture(scope="module")
def calibrated(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return give_units(copy_of(small_study, tmp_path_factory.mktemp("page") / "study"))


@pytest.fixture
def study(calibrated: Study, tmp_path: Path) -> Study:
    """A copy with nothing verified, tagged or queued."""
    return copy_of(calibrated, tmp_path / "study")


@pytest.fixture(scope="module")
def found(calibrated: Study) -> Supports:
    return find(calibrated)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are queued, but no runner starts them."""
    monkeypatch.setattr("engine.running.jobs.queue.start_runner", lambda study: None)


def id_of(study: Study, row: int) -> str:
    return str(study.table("test")["id"].iloc[row])


# --- the list -------------------------------------------------------------------------------------


def test_the_most_brittle_come_first(visit: Any, study: Study, found: Supports) -> None:
    app = visit(study, "brittle")
    shown = cards(app)
    assert [card["row"] for card in shown] == found.ranked.tolist()
    likely = found.flip_probability(found.ranked)
    for place, (row, card) in enumerate(zip(found.ranked, shown, strict=True)):
        probability = likely[place, found.size[row] - 1]
        assert card["score"] == f"{FLIP.text(probability)} · k {found.size[row]}"
    # The first one is open beside the list.
    assert [card["row"] for card in cards(app, gallery=1)] == found.removal(
        found.ranked[0]
    ).tolist()
    assert f"{len(found.ranked)} of 60 are predicted to flip when at most 20" in words(app)


def test_filters_are_kept_in_the_url(visit: Any, study: Study, found: Supports) -> None:
    labels = study.table("test")["label"]
    wanted = labels[found.ranked[0]]
    app = visit(study, "brittle")
    app.selectbox(key="label").select(wanted).run()
    assert app.query_params["label"] == wanted
    rows = [int(row) for row in found.ranked if labels[row] == wanted]
    assert [card["row"] for card in cards(app)] == rows
    app = visit(study, "brittle", label=wanted, status="verified")
    assert not cards(app)
    smallest = int(found.size[found.ranked].min())
    app = visit(study, "brittle", at_most=str(smallest))
    assert [card["row"] for card in cards(app)] == find(study, at_most=smallest).ranked.tolist()


@pytest.mark.parametrize(
    ("name", "value"),
    [("likely", "81"), ("at_most", "0"), ("at_most", "x"), ("flag", "<b>"), ("status", "maybe")],
)
def test_invalid_parameters_are_reported(visit: Any, study: Study, name: str, value: str) -> None:
    app = visit(study, "brittle", **{name: value})
    assert "This link has invalid parameters." in words(app)
    assert "<b>”" not in words(app)


def test_the_filtered_list_is_exported(visit: Any, study: Study, found: Supports) -> None:
    label = study.table("test")["label"][found.ranked[0]]
    app = visit(study, "brittle", label=label)
    named = [button.proto.label for button in app.get("download_button")]
    assert named == ["CSV", "JSON", "Parquet"]


# --- one prediction -------------------------------------------------------------------------------


def test_a_prediction_shows_its_removal_set_and_flip(
    visit: Any, study: Study, found: Supports
) -> None:
    row = next(int(row) for row in found.ranked if 1 < found.size[row] < 20)
    app = visit(study, "brittle", test=id_of(study, row))
    assert f"Without its <b>{found.size[row]} strongest" in words(app)
    assert f"Predicted to flip without {found.size[row]}." in words(app)
    assert [card["row"] for card in cards(app, gallery=1)] == found.removal(row).tolist()
    assert "Predicted, not verified" in words(app)
    app.slider(key="removed").set_value(len(found.removal(row, 20))).run()
    assert [card["row"] for card in cards(app, gallery=1)] == found.removal(row, 20).tolist()
    assert app.query_params["removed"] == str(len(found.removal(row, 20)))


def test_a_stable_prediction_is_not_predicted_to_flip(
    visit: Any, study: Study, found: Supports
) -> None:
    stable = int(np.flatnonzero((found.size == 0) & (found.agreement == 1))[0])
    app = visit(study, "brittle", test=id_of(study, stable))
    assert "Not predicted to flip when its 20 strongest" in words(app)
    assert not [button for button in app.button if button.key == "verify"]


def test_an_unknown_example_gets_a_warning(visit: Any, study: Study) -> None:
    assert "There is no test example “nobody” here." in words(
        visit(study, "brittle", test="nobody")
    )


def test_tags_and_notes_with_undo(visit: Any, study: Study, found: Supports) -> None:
    row = int(found.ranked[0])
    app = visit(study, "brittle", test=id_of(study, row))
    app.text_input(key=f"new_tag_{row}").set_value("<i>look</i>").run()
    app.text_input(key=f"new_note_{row}").set_value("<script>x</script>").run()
    assert read_tags(study, "mlp")[row].tags == ["<i>look</i>"]
    assert "<script>" not in words(app)
    assert "&lt;script&gt;x" in words(app)
    assert "<i>look</i>" in app.selectbox(key="tag").options
    app.button(key="undo").click().run()
    assert read_tags(study, "mlp")[row].notes == []
    app.button(key="untag <i>look</i>").click().run()
    assert read_tags(study, "mlp")[row].tags == []
    app.button(key="undo").click().run()
    assert read_tags(study, "mlp")[row].tags == ["<i>look</i>"]


# --- verifying ------------------------------------------------------------------------------------


def test_verify_submits_a_job(visit: Any, study: Study, found: Supports, queued: None) -> None:
    row = int(found.ranked[0])
    app = visit(study, "brittle", test=id_of(study, row))
    app.button(key="verify").click().run()
    (job,) = jobs(study.root)
    assert (job.kind, job.parameters["tests"], job.parameters["seeds"]) == ("brittle", [row], 5)
    app.run()
    (cancel,) = [button for button in app.button if button.label == "Cancel"]
    cancel.click().run()
    assert jobs(study.root)[0].status == "cancelled"
    app.number_input(key="first").set_value(2)
    app.button(key="verify_first").click().run()
    assert jobs(study.root)[0].parameters["tests"] == found.ranked[:2].tolist()


def test_a_verified_prediction_shows_the_outcome(visit: Any, study: Study, found: Supports) -> None:
    row = int(found.ranked[0])
    (one,) = verify_brittle(study, found, [row], seeds=2, workers=0)
    outcome = one.outcomes[0]
    app = visit(study, "brittle", test=id_of(study, row))
    status = "Verified" if outcome.flipped else "Refuted"
    assert f"{status}: {round(2 * outcome.flips.mean)} of 2 retrained models flip" in words(app)
    app = visit(study, "brittle", status=status.lower())
    assert [card["row"] for card in cards(app)] == [row]
    assert status.lower() in cards(app)[0]["tag"]
    # What retraining refuted is neither counted nor listed among the brittle ones.
    app = visit(study, "brittle")
    listed = [card["row"] for card in cards(app)]
    assert (row in listed) == outcome.flipped
    assert f"{len(listed)} of 60 are predicted to flip" in words(app)


def test_refuted_predictions_are_listed_only_when_asked_for() -> None:
    statuses = ["predicted", "refuted", "verified"]
    table = pd.DataFrame({"status": statuses, "label": "a", "data_issues": "", "tags": ""})
    query = Query(20, 80, None, None, None, None, None, ())
    assert matching(table, query).tolist() == [0, 2]
    assert matching(table, replace(query, status="refuted")).tolist() == [1]


# --- missing scores or recipe ---------------------------------------------------------------------


def test_uncalibrated_scores_explain_what_to_add(visit: Any, tmp_path: Path) -> None:
    app = visit(write_study(tmp_path / "study"), "brittle")
    assert "The scores are not calibrated" in words(app)


def test_without_scores_the_build_progress_is_shown(visit: Any, tmp_path: Path) -> None:
    app = visit(write_study(tmp_path / "study", stage="predictions"), "brittle")
    assert "appear here as soon as they are scored" in words(app)


def test_without_a_recipe_flips_are_predicted_but_not_verified(
    visit: Any, study: Study, tmp_path: Path
) -> None:
    copy = copy_of(study, tmp_path / "copy")
    names = []
    for number in range(2):
        shutil.copy(
            layout.checkpoint_file(copy.root, "mlp", number), copy.root / f"{number}.safetensors"
        )
        names.append(f"{number}.safetensors")
    recipe = "epochs = 4\nlearning_rate = 0.05\nbatch_size = 64\ncheckpoints = 2"
    app = visit(change(copy.root, recipe, f"weights = {json.dumps(names)}"), "brittle")
    assert "Add the recipe that made them" in words(app)
    assert cards(app)
    assert not [button for button in app.button if button.key == "verify_first"]


def test_an_empty_list_says_what_would_fill_it(visit: Any, study: Study) -> None:
    app = visit(study, "brittle", at_most="1", likely="95")
    assert "No prediction flips with a probability of 95% or more" in words(app)
    app.button(key="wider_at_most").click().run()
    assert app.query_params["at_most"] == "100"
    assert cards(app)


# --- the chart ------------------------------------------------------------------------------------


def test_the_curve_has_a_text_alternative() -> None:
    likely = np.array([0.01, 0.2, 0.6, 0.83])
    shown = flip_curve(likely, 2, 3, 0.8)
    assert "Without 2: 60%. With all, by chance alone: 1%. Predicted to flip without 3." in shown
    assert 'class="dl-flip" style="left:100.00%"' in shown
    assert 'class="dl-flip"' not in flip_curve(likely, 2, 0, 0.8)
    assert "polygon(" in flip_curve(likely[:2], 1, 0, 0.8)


def test_exports_open_in_pandas(study: Study, found: Supports) -> None:
    import io

    from dashboard.read.supports import brittle
    from engine.applications.brittle.table import as_bytes

    arrow, table = brittle(study, found)
    opened = pd.read_parquet(io.BytesIO(as_bytes(arrow, "parquet")))
    assert opened["row"].tolist() == table["row"].tolist() == found.ranked.tolist()


# --- exact scores ---------------------------------------------------------------------------------


def test_the_set_found_by_replay_is_offered_and_verified(
    visit: Any, study: Study, found: Supports, queued: None
) -> None:
    row = int(found.ranked[0])
    assert "By exact scores" not in words(visit(study, "brittle", test=id_of(study, row)))
    scores = np.zeros((5, study.dataset.n_train), np.float32)
    scores[:, 9] = (1 if found.right[row] else -1) * 5 * abs(found.logit_gap[row])
    keep_replay(study, row, scores)
    app = visit(study, "brittle", test=id_of(study, row))
    assert "Replay of 5 models: without its 1 strongest" in words(app)
    assert [card["row"] for card in cards(app, gallery=2)] == [9]
    app.button(key="verify_exact").click().run()
    assert not app.exception
    (one,) = jobs(study.root)
    assert one.kind == "brittle"
    assert (one.parameters["tests"], one.parameters["exact"]) == ([row], True)
