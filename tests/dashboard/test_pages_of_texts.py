"""Every page of a study of source and target texts opens, and shows both and what is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import Study
from engine.data.tokens import target_pieces
from engine.study.removal_sets import keep_set
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, everything


@pytest.fixture(scope="module")
def facts(facts_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A copy of the study with a removal set."""
    study = copy_of(facts_study, tmp_path_factory.mktemp("facts") / "study")
    keep_set(study, [1, 2, 3], "three rows")
    return study


PAGES: dict[str, tuple[str, dict[str, str], str]] = {
    "overview": ("overview", {}, "Who lives where"),
    "explore": ("explore", {}, "test-0"),
    "explain nothing": ("explain", {}, "test-"),
    "explain": ("explain", {"test": "test-3"}, "does the model"),
    "explain tokens": (
        "explain",
        {"test": "test-3", "output": "tokens:1"},
        "In the answer “",
    ),
    "explain rather": (
        "explain",
        {"test": "test-3", "output": "rather-than:Lima"},
        "rather than “Lima”",
    ),
    "token shares": ("explain", {"test": "test-3", "tokens": "train-5"}, "Which tokens carry it"),
    "training": ("training", {"train": "train-5"}, "train-5"),
    "brittle": ("brittle", {}, "brittle"),
    "map": ("map", {}, "Map"),
    "what if": ("what_if", {"set": "SET"}, "three rows"),
    "unlearn": ("unlearn", {}, "What should be forgotten?"),
    "compare": ("compare", {}, "algorithm"),
    "live": ("live", {}, "Live"),
    "quality": ("quality", {}, "LDS"),
    "provenance": ("provenance", {}, "text-to-text"),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens(name: str, facts: Study, visit: Any) -> None:
    view, parameters, shown = PAGES[name]
    if "set" in parameters:
        parameters = {"set": keep_set(facts, [1, 2, 3], "three rows").key}
    text = everything(visit(facts, view, **parameters))
    assert shown.lower().replace("’", "'") in text.lower().replace("’", "'")


def test_explain_shows_what_is_generated_beside_what_is_expected(facts: Study, visit: Any) -> None:
    row = 3
    text = everything(visit(facts, "explain", test=f"test-{row}"))
    assert facts.table("test")["text"][row] in text
    assert facts.predictions("test")["predicted"][row] in text
    assert "Expected" in text


def test_cards_have_source_and_target(facts: Study, visit: Any) -> None:
    found = cards(visit(facts))
    texts = facts.table("test")["text"]
    assert [card["text"] for card in found[:3]] == list(texts[:3])
    assert found[0]["hint"].startswith("test-0: predicted ")


def test_brittle_facts_are_listed(facts: Study, visit: Any, tmp_path: Path) -> None:
    study = give_units(copy_of(facts, tmp_path / "calibrated"), "t5")
    text = everything(visit(study, "brittle", likely="50", at_most="100"))
    assert "are predicted to flip when at most 100 training" in text


def test_target_tokens_are_chosen_and_explained(facts: Study, visit: Any) -> None:
    """By their own buttons; the address holds the choice."""
    app = visit(facts, "explain", test="test-3")
    app.radio(key="output_choice").set_value("tokens:{}").run()
    assert app.query_params["output"] == "tokens:1"
    app.button_group(key="output_tokens").set_value([1, 2]).run()
    assert app.query_params["output"] == "tokens:1,2"
    assert not app.exception
    first, second = target_pieces(str(facts.table("test")["target"][3]), facts.dataset.encoding)[:2]
    assert f"why “{first}”, “{second}”?" in everything(app)
    assert "have this label" not in everything(app)  # texts have no labels


def test_another_answer_is_written_and_explained(facts: Study, visit: Any) -> None:
    app = visit(facts, "explain", test="test-3")
    app.radio(key="output_choice").set_value("rather-than:{}").run()
    name = app.query_params["output"]
    target = str(facts.table("test")["target"][3])
    assert name.startswith("rather-than:")
    assert name != f"rather-than:{target}"
    app.text_input(key="output_text").set_value("Utrecht").run()
    assert app.query_params["output"] == "rather-than:Utrecht"
    assert "rather than “Utrecht”" in everything(app)
