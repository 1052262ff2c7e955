"""The Training page in every state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.parts.charts.influence_rank import rank_words
from engine.api import Study
from engine.study.rankings import read_top_of_training, read_totals
from tests.builders.page_contents import cards, words


def test_training_shows_predictions_it_helps_and_hurts(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "training", train="train-3")
    top = read_top_of_training(complete_study, 3)
    for side, sign in enumerate(("support", "oppose")):
        shown = cards(app, side)
        assert [card["row"] for card in shown] == list(top[f"{sign}_index"][:12])
        assert all(card["score"].startswith("+−"[side]) for card in shown)
        assert f"test=test-{shown[0]['row']}" in shown[0]["href"]
        assert shown[0]["href"].startswith("explain?")
        assert "predicted" in shown[0]["hint"]
    prediction = complete_study.predictions("train").iloc[3]
    shown_words = words(app)
    assert "Training picture train-3" in shown_words
    assert prediction["predicted"] in shown_words
    assert f"{prediction['confidence']:.1%}" in shown_words
    assert ("still disagree" in shown_words) is not bool(prediction["correct"])
    assert "quality not measured" in app.get("popover")[1].proto.popover.label


def test_training_shows_the_rank_of_its_influence(visit: Any, complete_study: Study) -> None:
    totals, labels = read_totals(complete_study), complete_study.table("train")["label"].to_numpy()
    weight = totals["train_support"] - totals["train_oppose"]
    members = weight[labels == labels[3]]
    shown = words(visit(complete_study, "training", train="3"))
    assert f"<b>{(members < weight[3]).sum()} of the {len(members) - 1}</b>" in shown
    assert "data-here" in shown


def test_training_links_back_to_the_explanation(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "training", train="train-3", test="test-5", result="wrong")
    assert app.button(key="back").label == "Back to test-5"
    app.button(key="back").click().run()
    assert app.query_params["test"] == "test-5"
    assert app.query_params["result"] == "wrong"
    assert "for test-5" in words(app)
    alone = visit(complete_study, "training", train="train-3", test="nobody")
    assert alone.button(key="back").label == "Test set"


def test_training_keeps_k_and_its_url_is_complete(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "training", train="train-3", test="test-5", k="5")
    assert [len(cards(app, side)) for side in (0, 1)] == [5, 5]
    app.number_input(key="k").set_value(7).run()
    assert len(cards(app, 1)) == 7
    assert app.query_params["k"] == "7"
    assert (app.query_params["train"], app.query_params["test"]) == ("train-3", "test-5")
    more = visit(
        complete_study, "training", train="train-3", k="60"
    )  # At most as many as are stored.
    assert len(cards(more, 0)) == 20


def test_without_an_example_training_offers_the_most_influential(
    visit: Any, complete_study: Study
) -> None:
    app = visit(complete_study, "training")
    assert "Which training picture?" in words(app)
    totals = read_totals(complete_study)
    weight = totals["train_support"] - totals["train_oppose"]
    assert [card["row"] for card in cards(app)] == list(np.argsort(-weight, kind="stable")[:24])
    app.text_input(key="open_training").set_value("train-9").run()
    assert app.query_params["train"] == "train-9"
    assert "Training picture train-9" in words(app)
    for train in ("nobody", "60", "<b>x</b>"):
        app = visit(complete_study, "training", train=train)
        assert "There is no training picture" in words(app)
        assert "<b>x</b>" not in words(app)


@pytest.mark.parametrize(
    ("weight", "members", "text"),
    [
        (1.0, [1.0], "only training picture labeled “a”"),
        (1.0, [1.0, 1.0], "0 of the 1</b>"),
        (3.0, [1.0, 2.0, 3.0, 4.0], "2 of the 3</b>"),
    ],
)
def test_influence_rank_in_a_class(weight: float, members: list[float], text: str) -> None:
    assert text in rank_words(weight, np.array(members), "a", "picture")
