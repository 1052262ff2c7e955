"""The Compare page in every state; uploads run in a real worker."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import dashboard.read.upload_trials
from dashboard.__main__ import largest_upload
from engine import Study, store
from engine.applications.modeldiff.job import run_hypothesis, run_job
from engine.applications.modeldiff.notes import keep_note, notes
from engine.applications.modeldiff.report_file import as_csv, as_dict, as_html
from engine.build.retraining import check_recipe, has_recipe
from engine.exchange.uploads.keeping import delete, trial_worker
from engine.running.jobs import queue
from engine.running.jobs.queue import jobs
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.errors import DataloupeError, UploadError
from engine.study.rankings import find_influences
from engine.study.uploads import write_upload
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, component_of, words

NAME = "<b>Mine</b> | other"


@pytest.fixture(scope="module")
def worker(small_study: Study) -> Iterator[KeptWorker]:
    """One worker for all tests of this file: it takes seconds to load."""
    kept = trial_worker(small_study)
    yield kept
    kept.end()


@pytest.fixture
def page(visit: Any, worker: KeptWorker, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page, with jobs that are queued but never run."""
    monkeypatch.setattr(dashboard.read.upload_trials, "_worker", lambda study: worker)
    monkeypatch.setattr(queue, "start_runner", lambda study: None)
    return lambda study, **parameters: visit(study, "compare", **parameters)


@pytest.fixture
def fresh(small_study: Study, tmp_path: Path) -> Study:
    """A writable copy of the small study without uploads."""
    shutil.copytree(small_study.root, tmp_path / "study")
    return Study.open(tmp_path / "study")


def no_progress(done: int, total: int, what: str) -> None:
    """Report no progress."""


@pytest.fixture(scope="module")
def shared_compared(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with a changed model uploaded, compared and tested."""
    root = tmp_path_factory.mktemp("compared") / "study"
    shutil.copytree(small_study.root, root)
    study = Study.open(root)
    weights = store.read_tensors(layout.checkpoint_file(study.root, "mlp", 0))
    rng = np.random.default_rng(0)
    changed = {
        k: v + np.float32(0.05) * rng.standard_normal(v.shape, np.float32)
        for k, v in weights.items()
    }
    path = root.parent / "mine.safetensors"
    store.write_tensors(path, changed, "mine")
    upload = study.upload(path, name=NAME)
    found = run_job(study, {"a": "mlp", "b": upload.id, "workers": 0}, no_progress)["comparison"]
    for names in (None, ["patch"]):
        run_hypothesis(study, {"comparison": found, "names": names, "rows": [0, 1, 2]}, no_progress)
    return study


@pytest.fixture
def compared(shared_compared: Study, tmp_path: Path) -> Study:
    """A writable copy of the compared study."""
    return copy_of(shared_compared, tmp_path / "compared")


def the_upload(study: Study) -> str:
    (upload,) = study.uploads
    return upload


def the_comparison(study: Study) -> str:
    (path,) = layout.comparison_files(study.root)
    return path.stem


def give(app: AppTest, *contents: bytes, name: str = "a.safetensors") -> AppTest:
    files = [
        (f"{n}{name}", content, "application/octet-stream") for n, content in enumerate(contents)
    ]
    app.file_uploader(key="checkpoints_0").set_value(files).run()
    app.button(key="upload").click().run()
    assert not app.exception
    return app


# --- uploading -----------------------------------------------------------------------------------


def test_a_study_with_one_algorithm_asks_for_a_second(page: Any, small_study: Study) -> None:
    app = page(small_study)
    shown = words(app)
    assert "Which model should be compared?" in shown
    assert "grayscale pictures" in shown.lower()
    assert "opening one runs the code in it" in shown
    assert app.button(key="upload").disabled
    assert "mlp" in app.selectbox(key="upload_architecture_0").options


def test_text_studies_can_be_compared(page: Any, text_study: Study) -> None:
    assert "token ids of the study" in words(page(text_study))


def test_before_the_data_are_read_a_notice_is_shown(visit: Any, idle_study: Study) -> None:
    assert "as soon as the data are read" in words(visit(idle_study, "compare"))


def test_an_upload_gets_a_quick_report_without_a_job(page: Any, fresh: Study) -> None:
    content = layout.checkpoint_file(fresh.root, "mlp", 1).read_bytes()
    app = page(fresh)
    app.text_input(key="upload_name_0").input("Second <i>")
    give(app, content)
    upload = fresh.uploads[the_upload(fresh)]
    assert upload.name == "Second <i>"
    assert app.query_params["b"] in (upload.id, [upload.id])
    shown = words(app)
    assert "Second &lt;i&gt; at a glance" in shown
    assert "1 checkpoint, indicative: 4 more needed" in shown
    assert "holds the same weights as checkpoint 1 of mlp, which this study has already" in shown
    assert f"<code>{upload.files[0].sha256[:16]}</code>" in shown
    logits = store.read_tensors(layout.outputs_file(fresh.root, "mlp", 1, "test"))["logits"]
    classes = np.array(fresh.dataset.classes)
    labels = fresh.table("test")["label"].to_numpy()
    predicted = classes[np.asarray(logits).argmax(axis=1)]
    assert f"<dd>{(predicted == labels).mean():.1%}<small>mean of 1 checkpoint" in shown
    theirs = fresh.predictions("test", "mlp")["predicted"].to_numpy()
    assert f"{(predicted != theirs).sum()} of 60 differ" in shown
    assert {card["row"] for card in cards(app)} == set(np.flatnonzero(predicted != theirs))
    assert jobs(fresh.root) == []
    app.button(key="compare").click().run()
    (job,) = jobs(fresh.root)
    assert (job.kind, job.parameters["a"], job.parameters["b"]) == ("compare", "mlp", upload.id)
    assert job.title == "Compare mlp and Second <i>"
    assert "Waiting" in words(app)
    assert "compare" not in [button.key for button in app.button]


def test_a_refused_upload_gets_one_message(page: Any, fresh: Study) -> None:
    app = give(page(fresh), b"\x80\x04", name="<img src=x>.safetensors")
    assert "&lt;img src=x&gt;" in words(app)
    assert words(app).count('data-kind="wrong"') == 1
    assert not fresh.uploads
    assert not layout.uploaded_weights_files(fresh.root)
    # The uploaded file is dropped: the next attempt starts without a file.
    assert not app.file_uploader(key="checkpoints_1").value
    good = layout.checkpoint_file(fresh.root, "mlp", 0).read_bytes()
    app.file_uploader(key="checkpoints_1").set_value(
        [(f"{n}.safetensors", good, "application/octet-stream") for n in range(2)]
    ).run()
    app.button(key="upload").click().run()
    assert "holds the same weights as 0.safetensors, so the two count as one" in words(app)
    assert [file.name for file in fresh.uploads[the_upload(fresh)].files] == ["0.safetensors"]


def test_uploads_are_renamed_and_deleted_after_confirmation(page: Any, fresh: Study) -> None:
    upload = fresh.upload(layout.checkpoint_file(fresh.root, "mlp", 0)).id
    app = page(fresh)
    app.text_input(key=f"name-{upload}").input("Better").run()
    app.button(key=f"rename-{upload}").click().run()
    assert fresh.uploads[upload].name == "Better"
    app.button(key=f"delete-{upload}").click().run()
    assert upload in fresh.uploads
    assert app.button(key=f"delete-{upload}").label == "Delete Better for everyone"
    app.button(key=f"delete-{upload}").click().run()
    assert not app.exception
    assert not fresh.uploads
    assert "Deleted “Better”" in words(app)
    assert "Which model should be compared?" in words(app)


def test_expired_uploads_are_deleted_on_the_next_visit(page: Any, fresh: Study) -> None:
    upload = fresh.upload(layout.checkpoint_file(fresh.root, "mlp", 0))
    spec = layout.spec_file(fresh.root).read_text()
    layout.spec_file(fresh.root).write_text(spec.replace("[uploads]", "[uploads]\nkeep_days = 7"))
    page(fresh)
    assert list(fresh.uploads) == [upload.id]
    write_upload(
        fresh.root, replace(upload, when=(datetime.now(UTC) - timedelta(days=8)).isoformat())
    )
    shown = words(page(fresh))
    assert "Uploads are deleted after 7 days." in shown
    assert "Which model should be compared?" in shown
    assert not fresh.uploads
    assert not layout.uploaded_weights_files(fresh.root)


def test_an_invalid_url_is_reported(page: Any, compared: Study) -> None:
    app = page(compared, a="nobody", b="upload-000000000000", pane="<x>", direction="-1", side="c")
    assert "no learning algorithm “nobody”" in words(app)
    app = page(compared, a="mlp", b="mlp", direction="999")
    assert "cannot be compared with itself" in words(app)


def test_the_upload_limit_comes_from_the_study(compared: Study, tmp_path: Path) -> None:
    assert largest_upload(compared.root) == compared.spec.uploads.max_mib
    assert largest_upload(tmp_path) == dashboard.read.live_queries.MEGABYTES


# --- directions ----------------------------------------------------------------------------------


def test_directions_both_ways(page: Any, compared: Study) -> None:
    upload = the_upload(compared)
    about = store.read_json(layout.comparison_file(compared.root, the_comparison(compared)))
    for side in ("a", "b"):
        app = page(compared, a="mlp", b=upload, side=side, direction="2")
        found = about["directions"][side][1]
        shown = words(app)
        assert "not judged" in shown
        assert "Indicative: one side has 1 checkpoint; 4 more would be enough." in shown
        assert "Both attributed with TRAK. Not tested: at least one algorithm needs " in shown
        # First the end with most test examples, and what the direction's side uses more there.
        along = dict(zip(found["tests"], found["projections"], strict=True))
        ends = {"positive": 1, "negative": -1}
        main, reverse = sorted(ends, key=lambda end: -ends[end] * sum(along.values()))
        for group, end in enumerate((main, reverse)):
            assert [card["row"] for card in cards(app, group, gallery=1)] == found[end][:14]
            rows = [row for row in found["tests"] if along[row] * ends[end] > 0]
            if rows:
                assert [card["row"] for card in cards(app, group)] == rows[:14]
        signs = [group["sign"] for group in component_of(app, "groups")[1]["groups"]]
        assert signs == (["a", "b"] if side == "a" else ["b", "a"])
        assert "<b>Mine" not in shown
        assert "&lt;b&gt;Mine&lt;/b&gt;" in shown


def test_the_method_of_each_side_can_be_chosen(page: Any, fresh: Study) -> None:
    """Datamodels and imported scores next to TRAK; the other side follows if it has them."""
    for name in ("mlp", "second"):
        folder = layout.algorithm_folder(fresh.root, name)
        if name == "second":  # the same models under another name
            spec = (fresh.root / "study.toml").read_text()
            again = spec[spec.index("[algorithms.mlp]") : spec.index("[search]")]
            (fresh.root / "study.toml").write_text(spec + again.replace("mlp]", "second]"))
            shutil.copytree(layout.algorithm_folder(fresh.root, "mlp"), folder)
    study = Study.open(fresh.root)
    app = page(study, a="mlp", b="second")
    assert app.selectbox(key="by_a").value == app.selectbox(key="by_b").value == "trak"
    assert "Datamodel + TRAK" in app.selectbox(key="by_a").options
    app.selectbox(key="by_a").select("datamodel").run()
    assert app.selectbox(key="by_b").value == "datamodel"
    assert "Two different methods are chosen" not in words(app)
    app.button(key="compare").click().run()
    (job,) = jobs(study.root)
    assert [job.parameters[f"method_{key}"] for key in ("a", "b")] == 2 * ["datamodel"]
    assert "compare" not in [button.key for button in app.button]
    app = page(study, a="mlp", b="second")  # by TRAK nothing is under way
    assert "compare" in [button.key for button in app.button]
    run_job(study, job.parameters, no_progress)
    app = page(study, a="mlp", b="second", by_a="datamodel", by_b="datamodel")
    assert "Both attributed with Datamodel. Not tested: both algorithms need" in words(app)
    assert "subset runs or more" in words(app)
    app.button(key="swap").click().run()
    assert app.selectbox(key="by_a").value == "datamodel"
    app = page(study, a="mlp", b="second", by_a="hybrid", by_b="nothing")
    assert "second has no scores by the method “nothing”" in words(app)
    assert "Two different methods are chosen" in words(app)


def test_directions_no_larger_than_chance_are_marked(
    page: Any, compared: Study, tmp_path: Path
) -> None:
    study = compared
    path = layout.comparison_file(study.root, the_comparison(study))
    about = store.read_json(path)
    for number, p in enumerate((0.001, 0.5)):
        about["directions"]["a"][number]["p"] = p
    store.write_json(path, about, about["id"])
    shown = words(page(study, b=the_upload(study)))
    assert "more than chance (p = 0.001)" in shown
    assert 'data-judged="chance"' in shown
    assert "no more than chance" in shown


def test_compare_opens_on_what_is_most_surely_a_difference(page: Any, compared: Study) -> None:
    path = layout.comparison_file(compared.root, the_comparison(compared))
    about = store.read_json(path)
    for side, ps in (("a", (0.6, 0.3)), ("b", (0.5, 0.001))):
        for number, p in enumerate(ps):
            about["directions"][side][number]["p"] = p
    store.write_json(path, about, about["id"])
    upload = the_upload(compared)
    app = page(compared, b=upload)
    assert app.segmented_control(key="side").value == "b"
    assert app.segmented_control(key="direction").value == "2"
    assert "side" not in app.query_params
    app.segmented_control(key="direction").set_value("1").run()
    assert (app.query_params["side"], app.query_params["direction"]) == ("b", "1")
    app = page(compared, b=upload, side="a")
    assert app.segmented_control(key="side").value == "a"


def test_a_direction_is_named_and_noted(page: Any, compared: Study) -> None:
    comparison = the_comparison(compared)
    app = page(compared, b=the_upload(compared))
    app.text_input(key=f"direction_name_{comparison}_a0").input("<i>Patch</i>")
    app.text_area(key=f"direction_note_{comparison}_a0").input("Only *pullovers*.")
    next(button for button in app.button if button.label == "Save name and note").click().run()
    assert not app.exception
    assert notes(compared, comparison)["a", 0].name == "<i>Patch</i>"
    assert "&lt;i&gt;Patch&lt;/i&gt;" in words(app)
    assert as_dict(compared, comparison)["comparison"]["directions"]["a"][0]["note"] == (
        "Only *pullovers*."
    )
    for bad in (
        ("a", 99, "x", ""),
        ("c", 0, "x", ""),
        ("a", 0, "x\n", "y"),
        ("a", 0, "x" * 99, ""),
    ):
        if bad[2] == "x\n":
            continue  # stripped
        with pytest.raises(DataloupeError):
            keep_note(compared, comparison, *bad)
    keep_note(compared, comparison, "a", 0, "", "")
    assert notes(compared, comparison) == {}


def test_one_example_under_both(page: Any, compared: Study) -> None:
    upload = the_upload(compared)
    app = page(compared, b=upload, pane="example", test="test-3", k="6")
    for gallery, place in ((0, 0), (1, 2)):
        rows = [find_influences(compared, 3, 6, one)[place].tolist() for one in ("mlp", upload)]
        assert [[c["row"] for c in cards(app, g, gallery)] for g in (0, 1)] == rows
        shared = set(rows[0]) & set(rows[1])
        tagged = {c["row"] for g in (0, 1) for c in cards(app, g, gallery) if "tag" in c}
        assert tagged == shared
        assert f"{len(shared)} of 6" in words(app)
    assert "There is no test example “nobody” here" in words(
        page(compared, b=upload, pane="example", test="nobody")
    )


@pytest.mark.parametrize("pane", ["directions", "example"])
def test_training_examples_of_a_comparison_can_be_selected(
    page: Any, compared: Study, pane: str
) -> None:
    upload = the_upload(compared)
    app = page(compared, b=upload, pane=pane, selected_train="3-4")
    training = [group for group in component_of(app, "groups") if group["selectable"]]
    assert len(training) == {"directions": 1, "example": 2}[pane]
    assert all(group["selected"] == [3, 4] for group in training)
    keys = {"explain_selected", "what_if_selected", "unlearn_selected"}
    assert keys <= {button.key for button in app.button}
    app.button(key="clear_selection").click().run()
    assert "selected_train" not in app.query_params
    assert not keys & {button.key for button in app.button}


def test_a_hypothesis_is_shown_and_measured(page: Any, compared: Study, tmp_path: Path) -> None:
    study = compared
    app = page(study, b=the_upload(study), pane="hypothesis")
    before = words(app)
    assert before.count("<figure>") == 3  # the direction's test examples
    tables = re.findall(r"<td>(differs|not significant)</td>", before)
    assert len(tables) in (0, 13)
    app.selectbox(key="shown_hypothesis").select_index(0).run()
    app.selectbox(key="transformation").select("patch").run()
    app.slider(key="option_patch_size").set_value(0.4).run()
    assert words(app) != before
    app.button(key="measure").click().run()
    assert not app.exception
    (job,) = jobs(study.root)
    assert job.parameters["names"] == ["patch"]
    assert job.parameters["options"]["patch"]["size"] == 0.4
    assert job.parameters["intensities"] == [0.333, 0.667, 1.0]
    app.slider(key="intensity").set_value(0.0).run()
    assert app.button(key="measure").disabled


def test_a_texture_that_is_not_a_picture(page: Any, compared: Study) -> None:
    app = page(compared, b=the_upload(compared), pane="hypothesis")
    app.selectbox(key="transformation").select("texture").run()
    app.file_uploader(key="option_texture_texture").upload("x.png", b"no", "image/png").run()
    assert not app.exception
    assert "is damaged or no picture" in words(app)


# --- export --------------------------------------------------------------------------------------


def test_the_report_is_complete_and_self_contained(compared: Study) -> None:
    comparison = the_comparison(compared)
    page = as_html(compared, comparison)
    assert "<b>Mine" not in page
    assert "&lt;b&gt;Mine" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page)
    assert "<script" not in page
    assert page.count("<figure>") > 100
    assert compared.dataset.fingerprint in page
    assert compared.uploads[the_upload(compared)].files[0].sha256 in page
    assert "ATE of mlp" in page
    content = json.loads(json.dumps(as_dict(compared, comparison), allow_nan=False))
    assert len(content["hypotheses"]) == 2
    rows = list(csv.DictReader(io.StringIO(as_csv(compared, comparison))))
    about = content["comparison"]["directions"]
    first = [row for row in rows if row["direction"] == "1" and row["directions_of"] == "mlp"]
    assert [int(row["row"]) for row in first if row["split"] == "test"] == about["a"][0]["tests"]
    assert {row["significant"] for row in rows} == {"not judged"}


# --- the other pages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        "explain",
        "explore",
        "training",
        "overview",
        "quality",
        "map",
        "live",
        "what_if",
        "brittle",
        "provenance",
    ],
)
def test_every_page_shows_an_upload(visit: Any, compared: Study, view: str) -> None:
    app = visit(
        compared, view, algorithm=the_upload(compared), test="test-3", train="train-3", set="none"
    )
    assert not app.exception
    assert "cannot be shown as it is" not in words(app)
    assert app.selectbox(key="algorithm").value == the_upload(compared)
    assert NAME in app.selectbox(key="algorithm").options


def test_an_upload_cannot_be_retrained(compared: Study) -> None:
    upload = the_upload(compared)
    assert not has_recipe(compared, upload)
    with pytest.raises(UploadError, match="can be predicted but not verified"):
        check_recipe(compared, upload)
    with pytest.raises(UploadError, match="finished checkpoints"):
        compared.verify([1, 2], algorithm=upload)
    badge = compared.badge(upload)
    assert (badge.checkpoints, badge.wanted) == (1, 4)
    assert compared.badge("mlp").wanted == 0


def test_deleting_takes_the_notes_along(compared: Study, tmp_path: Path) -> None:
    study = compared
    keep_note(study, the_comparison(study), "b", 1, "n", "")
    delete(study, the_upload(study))
    assert list((study.root / "comparisons").iterdir()) == []
