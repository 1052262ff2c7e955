"""The Quality page in every state, the badge that links to it, and scores in margin units."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest

from dashboard.parts.charts.interval_bars import Bar, intervals
from dashboard.parts.charts.line_chart import Line, curves
from dashboard.parts.charts.predicted_vs_actual import DOTS, POINTS, agreement
from dashboard.parts.gallery.cards import influence_texts
from engine.api import Study
from engine.attribution.evaluation.quality import Measured
from engine.store import layout
from engine.store.layout import TRAK
from engine.store.quantities import CHANGE, LDS
from engine.study.counterfactuals import predict_removal, read_units
from engine.study.measured_quality import (
    read_lds_of_each,
    read_own_lds,
    read_predicted_and_actual,
)
from engine.study.rankings import find_influences, read_top_of_training
from tests.builders.hostile_names import HOSTILE
from tests.builders.page_contents import cards, group_words, words
from tests.builders.synthetic_quality import write_quality
from tests.builders.synthetic_study import CLASSES, write_study


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("studies") / "measured"
    return write_quality(write_study(root, n_train=60, n_test=48))


def figure(app: AppTest) -> dict[str, Any]:
    (chart,) = app.get("plotly_chart")
    found: dict[str, Any] = json.loads(chart.proto.spec)
    return found


# --- states ------------------------------------------------------------------------------------


def test_everything_measured_is_shown(visit: Any, measured: Study) -> None:
    shown = words(visit(measured, "quality"))
    quality = measured.quality()
    assert quality is not None
    for one in quality.methods.values():
        assert f"{one.lds.mean:.3f}".replace("-", "−") in shown
        assert one.settings in shown
    assert "0.820" in shown
    assert f"0.780 to 0.860, {quality.methods['hybrid'].lds.mean / 0.82:.0%} reached" in shown
    assert "the LDS that perfect predictions would reach" in shown
    assert '"dl-name">Noise ceiling' in shown
    assert shown.count("baseline</span>") == 2
    assert "TRAK + runs <span class=" in shown
    assert ">preferred</span>" in shown
    assert "<li data-kind=" in shown
    for label in CLASSES:
        assert f'"dl-name">{label}' in shown
    assert ">do not trust</span>" in shown
    for text in (
        "What these scores are good for",
        "Prove what one example did",
        "LDS with more checkpoints",
        "LDS with more subset runs",
        "<td>1.5</td><td>0.5</td><td>0</td><td>0.310</td>",
        "120 masks, to fit datamodels",
        "40 masks, used only for the figures here",
    ):
        assert text in shown


def test_switching_the_method_applies_everywhere(visit: Any, measured: Study) -> None:
    app = visit(measured, "quality")
    assert app.query_params["method"] == "hybrid"
    app.selectbox(key="method").select("datamodel").run()
    assert app.query_params["method"] == "datamodel"
    assert "how far scores by Datamodel can be trusted" in words(app)
    assert "Validation prefers TRAK + runs" in words(app)
    assert "90% intervals" not in words(app)  # Only the hybrid has them.


def test_one_run_of_each_test_mask_gives_no_ceiling(visit: Any, tmp_path: Path) -> None:
    shown = words(visit(write_quality(write_study(tmp_path / "s"), seeds=1), "quality"))
    assert "Noise ceiling unknown: each test mask has one run" in shown
    assert '"dl-name">Noise ceiling' not in shown
    assert "reached" not in shown


@pytest.mark.parametrize("stage", ["spec", "data", "predictions"])
def test_before_there_are_scores(visit: Any, tmp_path: Path, stage: Any) -> None:
    shown = words(visit(write_study(tmp_path / "s", stage=stage), "quality"))
    assert "no scores yet" in shown
    assert "Read and check the data" in shown


def test_without_subset_runs_the_page_explains_what_to_add(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study, "quality")
    assert "The quality of these scores is not measured yet" in words(app)
    assert "240 models on 50% of the data: as long as training 120 models here" in words(app)
    assert [code.value for code in app.code] == [
        "[subset_runs]\nmasks = 200",
        f"dataloupe build {study.root}",
    ]
    spec = layout.spec_file(study.root).read_text()
    layout.spec_file(study.root).write_text(
        spec.replace("[algorithms.cnn]", '[algorithms.cnn]\nweights=["a"]')
    )
    shown = words(visit(Study.open(study.root), "quality"))
    assert "Add the recipe that made the weights" in shown
    assert "as long as training 120 models" in shown


def test_progress_is_shown_while_subset_runs_are_trained(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    layout.spec_file(study.root).write_text(
        layout.spec_file(study.root).read_text() + "[subset_runs]\nmasks = 20\n"
    )
    app = visit(study, "quality")
    assert "when the subset runs are done" in words(app)
    assert "0 of 24" in words(app)
    write_quality(study)
    app.run()
    assert "What these scores are good for" in words(app)
    assert "The run bank is growing: 0 of 24 runs" in words(app)


def test_imported_scores_without_trak(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    write_quality(study, methods=("datamodel", "embedding"))
    shutil.rmtree(layout.trak_folder(study.root, "cnn"))
    shutil.rmtree(layout.search_folder(study.root, "cnn", TRAK))
    shown = words(visit(study, "quality"))
    assert "how far scores by Datamodel can be trusted" in shown
    assert "LDS with more checkpoints" not in shown
    assert "the scores were computed elsewhere" in shown
    shutil.rmtree(layout.quality_folder(study.root, "cnn"))
    shown = words(visit(study, "quality"))
    assert "Scores by Datamodel were imported without a measured quality" in shown


def test_a_method_added_after_quality_was_measured(visit: Any, tmp_path: Path) -> None:
    study = write_quality(write_study(tmp_path / "s"))
    before = layout.quality_file(study.root, "cnn").read_bytes()
    shutil.rmtree(layout.quality_folder(study.root, "cnn"))
    write_quality(study, methods=(TRAK,))
    shown = words(visit(study, "quality", method="hybrid"))
    assert "TRAK + runs was added after quality was measured" in shown
    assert "until then, prefer TRAK" in shown
    assert "do not trust" not in shown
    layout.quality_file(study.root, "cnn").write_bytes(before)
    assert "was added after" not in words(visit(study, "quality", method="hybrid"))


def test_few_runs_and_chance_level_are_reported(visit: Any, tmp_path: Path) -> None:
    study = write_quality(write_study(tmp_path / "s"), masks=15)
    shown = words(visit(study, "quality"))
    assert "few: intervals are wide" in shown
    assert "Few runs: 3 held-out masks" in shown
    write_quality(study, skill=0.0)
    app = visit(study, "quality")
    assert "Do not use." in words(app)
    assert ">preferred · no better than chance</span>" in words(app)
    shown = [one.proto.popover.label for one in visit(study, "explain", test="1").get("popover")]
    assert any(label.endswith("no better than chance") for label in shown)


# --- predicted against actual ------------------------------------------------------------------


def test_points_of_all_examples_are_centered(visit: Any, measured: Study) -> None:
    app = visit(measured, "quality")
    assert "48 test examples in one of 40 held-out masks." in words(app)
    outputs = read_predicted_and_actual(measured)
    made = agreement(outputs, [str(row) for row in range(48)], "margin", None).data[1]
    assert len(made.x) == 48 * 40
    wanted = outputs["actual"] - outputs["actual"].mean(axis=1, keepdims=True)
    rows, runs = np.array(made.customdata).T
    np.testing.assert_allclose(made.y, wanted[rows, runs])
    assert np.corrcoef(made.x, made.y)[0, 1] > 0.2


def test_scores_without_a_unit_have_no_diagonal() -> None:
    outputs = {"predicted": np.eye(4), "actual": 9 * np.eye(4)}
    made = agreement(outputs, list("abcd"), "margin", None, calibrated=False)
    assert len(made.data) == 1
    assert made.layout.xaxis.title.text.startswith("Sum of scores")
    assert made.layout.xaxis.range is None


def test_many_points_are_a_density_with_a_sample_to_click() -> None:
    outputs = {name: np.random.default_rng(0).normal(size=(500, 50)) for name in "ab"}
    outputs = {"predicted": outputs["a"], "actual": outputs["b"]}
    first, again = (agreement(outputs, ["x"] * 500, "margin", None).data for _ in range(2))
    assert np.sum(first[1].customdata) == 500 * 50 > POINTS
    assert len(first[2].x) == DOTS
    assert first[2].customdata == again[2].customdata
    assert len({tuple(pair) for pair in first[2].customdata}) == DOTS


def test_one_example_is_kept_in_the_url_and_links_to_explain(visit: Any, measured: Study) -> None:
    app = visit(measured, "quality", test="test-7")
    each = read_lds_of_each(measured)
    assert f"rank correlation is {LDS.text(each[7])}" in words(app)
    points = figure(app)["data"][1]
    assert points["text"] == ["test-7"] * 40
    assert "error_x" in points
    app.button(key="Worst").click().run()
    assert app.query_params["test"] == f"test-{each.argmin()}"
    app.button(key="all").click().run()
    assert "test" not in app.query_params
    app.text_input(key="one_test").set_value("9").run()
    assert "Explain test-9" in [button.label for button in app.button]
    next(button for button in app.button if button.label == "Explain test-9").click().run()
    assert "for test-9" in words(app)
    assert app.query_params["method"] == "hybrid"


def test_an_unknown_example_gets_a_warning(visit: Any, measured: Study) -> None:
    shown = words(visit(measured, "quality", test="<b>nobody</b>"))
    assert "no test example “&lt;b&gt;nobody&lt;/b&gt;”; all are shown" in shown


def test_without_stored_outputs_the_rest_is_shown(visit: Any, tmp_path: Path) -> None:
    study = write_quality(write_study(tmp_path / "s"))
    layout.predicted_file(study.root, "cnn", "hybrid").unlink()
    app = visit(study, "quality")
    assert "LDS of each class" in words(app)
    assert not app.get("plotly_chart")


# --- the badge, and units of the margin --------------------------------------------------------


def test_the_badge_shows_the_lds_and_links_to_quality(visit: Any, measured: Study) -> None:
    app = visit(measured, "explain", test="test-1")
    quality = measured.quality()
    assert quality is not None
    lds = quality.methods["hybrid"].lds
    label = f"TRAK + runs · LDS {LDS.interval(lds)}"
    assert label in [one.proto.popover.label for one in app.get("popover")]
    own = read_own_lds(measured, 1, "cnn", "hybrid")
    assert own is not None
    shown = words(app)  # this example's own LDS, with its interval, beside that of all
    assert f"{LDS.text(own[0].mean)} <small>{LDS.range(own[0].low, own[0].high)}" in shown
    assert f"over {own[1]} subset runs only" in shown
    # 4 between subsets, and 0.7 ± 0.48 of it for a strong supporter in all the data.
    assert "lowers the margin by its score times 2.80 (0.88 to 4.72)" in words(app)
    (link,) = app.get("page_link")
    assert link.proto.page == "quality"
    assert parse_qs(link.proto.query_string)["test"] == ["test-1"]
    assert visit(measured, "overview").get("page_link")


def test_calibrated_scores_are_shown_as_changes_in_the_margin(visit: Any, measured: Study) -> None:
    app = visit(measured, "explain", test="test-1", k="5")
    _, scores, _, oppose_scores = find_influences(measured, 1, 5)
    card = cards(app, 0)[0]
    units = read_units(measured)
    assert units is not None
    assert float(card["score"]) == pytest.approx(-units.of_one(scores[:1], 1)[0], rel=0.01)
    assert "of margin (score +" in card["hint"]
    change = predict_removal(measured, 1, scores)
    assert change is not None
    assert -4 * scores.sum() < change.mean < 0
    summary = f"Removing these 5: margin {CHANGE.interval(change)}, on average"
    supporting, opposing = group_words(app)
    assert summary in supporting
    rise = predict_removal(measured, 1, oppose_scores)
    assert rise is not None
    assert f"margin {CHANGE.interval(rise)}" in opposing

    training = visit(measured, "training", train="train-3")
    top = read_top_of_training(measured, 3)
    effect = units.of_one(top["support_score"][:1], top["support_index"][:1])[0]
    assert float(cards(training, 0)[0]["score"]) == pytest.approx(-effect, rel=0.01)
    assert (
        "Numbers: influence on the margin, in its unit, by TRAK + runs." in group_words(training)[0]
    )


def test_uncalibrated_scores_are_shown_unscaled(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    before = cards(visit(study, "explain", test="test-1", method=TRAK))
    write_quality(study, skill=0.0)
    app = visit(study, "explain", test="test-1", method=TRAK)
    assert cards(app) == before
    assert "Removing" not in "".join(group_words(app))
    assert predict_removal(study, 1, np.ones(3), method=TRAK) is None


# --- pieces ------------------------------------------------------------------------------------


def test_hostile_names_are_shown_as_text(visit: Any, tmp_path: Path) -> None:
    study = write_quality(write_study(tmp_path / "s", classes=HOSTILE, wrong=0.5))
    shown = words(visit(study, "quality"))
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize("classes", [("a", "b"), [f"class {n}" for n in range(300)]])
def test_few_and_many_classes(visit: Any, tmp_path: Path, classes: list[str]) -> None:
    study = write_quality(write_study(tmp_path / "s", classes=classes, n_test=90))
    shown = words(visit(study, "quality"))
    assert ("The 24 worst of" in shown) is (len(classes) > 24)


ENDS = some.floats(-1, 1)


@given(some.lists(some.tuples(ENDS, ENDS, ENDS), min_size=1, max_size=5))
def test_bars_and_curves_stay_inside(triples: list[tuple[float, float, float]]) -> None:
    found = [Measured(mid, low, high) for low, mid, high in map(sorted, triples)]
    html = intervals([Bar(str(place), lds) for place, lds in enumerate(found)], "some")
    html += curves("t", "w", "runs", [Line("one", list(enumerate(found, start=1)), 0)])
    percents = [float(percent) for percent in re.findall(r"(-?[\d.]+)%", html)]
    assert len(percents) > 4 * len(found)
    assert all(-0.01 <= percent <= 100.01 for percent in percents)


def test_a_calibrated_amount_includes_its_score() -> None:
    scores = np.array([0.01, -0.05])
    assert influence_texts(scores, None, "margin") == [
        ("+0.0100", "score +0.0100"),
        ("−0.0500", "score −0.0500"),
    ]
    assert influence_texts(scores, 4 * scores, "margin") == [
        ("+0.0400", "+0.0400 of margin (score +0.0100)"),
        ("−0.200", "−0.200 of margin (score −0.0500)"),
    ]
