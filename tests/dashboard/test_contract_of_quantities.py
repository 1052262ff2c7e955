"""One contract of quantities: a number means and reads the same on pages, in the terminal, in
Python and in files."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.parts.controls.downloads import as_csv, as_json, rows_as_csv, rows_as_json
from dashboard.read.studies import examples, weights
from engine import Study
from engine.applications.verification.record import share_flipped
from engine.cli.main import main
from engine.store.layout import TRAK
from engine.store.quantities import (
    ACCURACY,
    CHANGE,
    CONFIDENCE,
    FLIP,
    INFLUENCE,
    LDS,
    OUTPUT,
    PREDICTED,
    PROBABILITY,
    SCORE,
    SLOPE,
    TOTAL_INFLUENCE,
)
from engine.study.measured_quality import require_quality
from engine.study.models import read_logit_gaps, read_probabilities
from engine.study.rankings import read_top_of_training
from engine.study.removal_sets import keep_set, name_set
from engine.tasks.outcomes import CLASSES
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, everything

K = 5
ROW = 7
REMOVED = list(range(120))


@pytest.fixture(scope="module")
def study(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with calibrated scores and a removal set: every quantity is there."""
    found = give_units(copy_of(small_study, tmp_path_factory.mktemp("contract") / "study"))
    keep_set(found, REMOVED, "the first")
    return found


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Any:
    """What a verb prints."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return run


def in_words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_an_explanation_is_the_same_everywhere(study: Study, visit: Any, terminal: Any) -> None:
    found = study.explain(ROW, K)
    listed = [*found.supporting, *found.opposing]
    assert found.confidence is not None
    assert found.output is not None
    assert found.badge.lds is not None
    assert found.badge.lds_low is not None
    assert found.badge.lds_high is not None
    quality = LDS.within(found.badge.lds, found.badge.lds_low, found.badge.lds_high)
    influences = [INFLUENCE.text(one.influence or 0) for one in listed]
    scores = [SCORE.text(one.score) for one in listed]

    app = visit(study, "explain", test=f"test-{ROW}", k=str(K))
    page = everything(app)
    shown = cards(app, 0) + cards(app, 1)
    assert [card["score"] for card in shown] == influences
    for card, influence, score in zip(shown, influences, scores, strict=True):
        assert f"{influence} of margin (score {score})" in card["hint"]
    assert "Numbers: influence on the margin, in its unit, by TRAK." in page
    likeliest = read_probabilities(study, "test", ROW, "mlp").max()
    assert CONFIDENCE.text(found.confidence) == PROBABILITY.text(likeliest)

    printed = in_words(terminal("explain", study.root, "--test", f"test-{ROW}", "--k", K))
    for text in (CONFIDENCE.text(found.confidence), OUTPUT.text(found.output), quality):
        assert text in page
        assert text in printed
    assert "influence (margin)" in printed
    assert "score (no unit)" in printed
    for influence, score in zip(influences, scores, strict=True):
        assert f"{influence} │ {score}" in printed

    told = terminal("explain", study.root, "--test", f"test-{ROW}", "--k", K, "--json")
    for exported in (json.loads(told), json.loads(as_json(found, "")), found.to_dict()):
        both = [*exported["supporting"], *exported["opposing"]]
        assert [INFLUENCE.text(one["influence"]) for one in both] == influences
        assert [SCORE.text(one["score"]) for one in both] == scores
        assert CONFIDENCE.text(exported["confidence"]) == CONFIDENCE.text(found.confidence)
        assert exported["influence_unit"] == "margin"
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [INFLUENCE.text(float(line["influence"])) for line in lines] == influences
    assert {(line["influence_unit"], line["method"]) for line in lines} == {("margin", TRAK)}


def test_a_slice_holds_what_its_page_shows(study: Study, visit: Any) -> None:
    found, here = examples(study, "test", "mlp"), np.arange(4)
    app = visit(study, "explore")
    shown = [card["aside"] for card in cards(app)[:4]]
    location = type("L", (), {"algorithm": "mlp", "slice": type("S", (), {"parameters": dict})})
    told = json.loads(rows_as_json(found, here, location, ""))["examples"]  # type: ignore[arg-type]
    lines = list(csv.DictReader(io.StringIO(rows_as_csv(found, here))))
    for rows in (told, lines):
        assert [CONFIDENCE.text(float(one["confidence"])) for one in rows] == shown


def test_a_removal_is_the_same_everywhere(study: Study, visit: Any, terminal: Any) -> None:
    found = study.counterfactual(REMOVED)
    gaps = read_logit_gaps(study, "mlp")
    flips = np.flatnonzero(np.sign(gaps) * np.sign(gaps + found.change) < 0)
    assert len(flips)
    assert found.flips.tolist() == flips.tolist()

    app = visit(study, "what_if", set=name_set(study, REMOVED, "the first").key)
    page = everything(app)
    assert f"Flips {len(flips)} of {len(gaps)} predicted classes change" in page
    fallen = [int(row) for row in found.strongest(-1, 10)]
    assert found.before is not None
    assert found.after is not None
    for card, row in zip(cards(app, 0, gallery=1), fallen, strict=False):
        assert card["score"] == CHANGE.text(found.change[row])
        assert card["note"] == OUTPUT.change(found.before[row], found.after[row])
        assert (card.get("tag") == "flips") == (row in flips)

    names = ",".join(f"#{row}" for row in REMOVED)
    printed = in_words(terminal("whatif", study.root, "--remove", names, "--k", 10))
    assert f"Predicted to flip: {len(flips)} of {len(gaps)}" in printed
    for mean in found.by_group.values():
        assert CHANGE.interval(mean) in printed
        assert CHANGE.text(mean.mean) in page
        assert CHANGE.range(mean.low, mean.high) in page
    for row in fallen:
        assert OUTPUT.change(found.before[row], found.after[row]) in printed
    told = json.loads(terminal("whatif", study.root, "--remove", names, "--json"))
    assert told["flips"] == flips.tolist()
    assert told["unit"] == "margin"
    assert not re.search(r"([+−]?[\d.]+) → \1(?![\d.])", page + printed)


def test_a_training_example_has_one_influence(study: Study, visit: Any) -> None:
    """On the page of the test example and on its own, in the list and on its own page."""
    weight = weights(study, "mlp", TRAK)
    row = int(weight.order[0])
    top = read_top_of_training(study, row, "mlp", TRAK)
    test = int(top["support_index"][0])
    both = study.explain(test, 60, method=TRAK).supporting
    (influence,) = [one.influence for one in both if one.row == row]
    assert influence is not None
    app = visit(study, "training", train=f"train-{row}")
    assert cards(app, 0)[0]["score"] == INFLUENCE.text(influence)
    own = everything(app)
    listed = cards(visit(study, "training"))[0]
    assert listed["score"] == TOTAL_INFLUENCE.text(weight.total[row])
    for part in (weight.support[row], -weight.oppose[row]):
        assert TOTAL_INFLUENCE.text(part) in own
        assert TOTAL_INFLUENCE.text(part) in listed["hint"]
    assert "in units of the margin" in own
    assert "in units of the margin" in listed["hint"]


def test_quality_is_the_same_everywhere(study: Study, visit: Any, terminal: Any) -> None:
    measured = require_quality(study, "mlp").methods[TRAK]
    assert measured.units is not None
    page = everything(visit(study, "quality"))
    printed = in_words(terminal("evaluate", study.root))
    assert LDS.text(measured.lds.mean) in page
    assert LDS.range(measured.lds.low, measured.lds.high) in page
    assert LDS.interval(measured.lds) in printed
    assert SLOPE.text(measured.units.slope.mean) in page
    right = study.predictions("test")["correct"].mean()
    assert ACCURACY.text(right) in everything(visit(study, "overview"))


def test_a_predicted_number_is_the_same_everywhere(
    brightness_study: Study, visit: Any, terminal: Any
) -> None:
    study = brightness_study
    number = float(study.predictions("test")["predicted"].iloc[3])
    text = PREDICTED.text(number)
    assert study.explain(3, 2).predicted == text
    id_ = study.explain(3, 2).id
    assert f"Predicted {text}" in everything(visit(study, "explain", test=id_))
    assert text in cards(visit(study, "explore"))[3]["note"]
    assert f"predicted {text}" in terminal("explain", study.root, "--test", id_, "--k", 2)


def test_the_probability_of_a_flip(study: Study, visit: Any, terminal: Any) -> None:
    """The same on the page, in the terminal and in files, and the rule that the list is made by."""
    listed = json.loads(terminal("brittle", study.root, "--json"))
    assert all(one["flip_probability"] >= 0.8 for one in listed)
    texts = [FLIP.text(one["flip_probability"]) for one in listed]
    shown = cards(visit(study, "brittle"))
    assert [card["score"].partition(" · ")[0] for card in shown] == texts
    printed = terminal("brittle", study.root)
    assert all(text in printed for text in texts)


def test_a_flip_is_a_change_of_the_predicted_class() -> None:
    flips = share_flipped("Coat", ["Shirt", "Coat", "Bag", "Coat"], CLASSES)
    assert flips is not None
    assert flips.mean == 0.5
    assert share_flipped("Coat", [], CLASSES) is None


NUMBERS = re.compile(r"\{[^{}]*:(\+|[+z]*\.\d)[fge%]?\}")
ROOT = Path(__file__).parents[2]
OTHERS = {
    "brittle.py": "whole numbers",
    "provenance.py": "sizes of files",
    "audit_results.py": "settings of an audit",
    "demo.py": "seconds",
    "evaluating.py": "settings",
    "unlearning.py": "settings of an audit",
    "how_to_measure.py": "settings",
    "quality.py": "settings",
    "quality_badge.py": "recall of an index",
    "example_header.py": "odds in words",
    "predicted_effect.py": "share of the data",
    "by_part.py": "style",
    "over_timesteps.py": "style",
    "support_groups.py": "style",
    "token_shading.py": "style",
    "verify_by_retraining.py": "Plotly's own formats",
}


def test_nothing_else_formats_a_quantity() -> None:
    """Pages and verbs write numbers by `engine.store.quantities`; styles have percents."""
    folders = ("engine/cli", "dashboard/views", *(f"dashboard/parts/{one}" for one in PARTS))
    found = {
        path.name
        for folder in folders
        for path in (ROOT / folder).glob("*.py")
        if any(NUMBERS.search(line.replace("}%", "")) for line in path.read_text().splitlines())
    }
    assert found <= set(OTHERS), found - set(OTHERS)


PARTS = ("gallery", "outputs", "removal", "compare", "quality", "unlearn", "text")
