"""The Explain page in every state."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from dashboard.parts.controls.downloads import as_csv, as_json
from dashboard.parts.gallery.example_header import odds, probabilities
from dashboard.slice_parameters import rows_text
from engine.api import Study
from engine.store.records import Influence
from engine.study.models import read_probabilities
from engine.study.names import resolve_row
from engine.study.rankings import find_influences, read_totals
from tests.builders.page_contents import cards, component, group_words, words


def example(study: Study, correct: bool) -> str:
    return f"test-{int(np.flatnonzero(study.predictions('test')['correct'] == correct)[0])}"


@pytest.mark.parametrize("correct", [True, False])
def test_explain_shows_both_sides(visit: Any, complete_study: Study, correct: bool) -> None:
    test = example(complete_study, correct)
    app = visit(complete_study, "explain", test=test)
    row = resolve_row(complete_study, "test", test)
    support, support_scores, oppose, _ = find_influences(complete_study, row, 12)
    for_, against = (0, 1) if correct else (1, 0)  # what explains a mistake comes first
    assert [card["row"] for card in cards(app, for_)] == list(support)
    assert [card["row"] for card in cards(app, against)] == list(oppose)
    assert all(card["score"].startswith("+") for card in cards(app, for_))
    assert all(card["score"].startswith("−") for card in cards(app, against))
    assert cards(app, for_)[0]["name"] == complete_study.table("train")["label"][support[0]]
    assert app.button(key="what_if").label == (
        f"What if these {'supporters' if correct else 'opposers'} were removed?"
    )
    links = [one.proto for one in app.get("page_link") if one.proto.label == "Review their labels"]
    assert len(links) == (not correct)  # where they can be relabeled
    for link in links:
        chosen = parse_qs(link.query_string)["selected_train"]
        assert chosen == [rows_text(oppose)]
    bars = [card["bar"] for side in (for_, against) for card in cards(app, side)]
    assert max(bars) == pytest.approx(1)
    assert bars[1] == pytest.approx(float(support_scores[1]) * bars[0] / float(support_scores[0]))
    supporting, opposing = (group_words(app)[side] for side in (for_, against))
    label, predicted = (
        complete_study.table("test")["label"][row],
        complete_study.predictions("test")["predicted"][row],
    )
    assert f"true label, “{label}”" in supporting
    if correct:
        assert f"Why “{label}”?" in words(app)
        assert "Predicted correctly" in words(app)
        assert "away from it" in opposing
    else:
        assert f"Why not “{label}”?" in words(app)
        assert f"which is {label}, predicted {predicted}" in words(app)
        assert "Predicted wrongly" in words(app)
        assert f"toward the wrong “{predicted}”" in opposing


def test_the_quality_badge_is_shown_with_the_scores(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1")
    shown = words(app)
    for text in ("TRAK", "32,768 per checkpoint", "Not measured", "Uncalibrated", "recall@20"):
        assert text in shown
    assert "dl-trust" not in shown  # that of the header would be a second one
    assert "dl-trust" in words(visit(complete_study, "explore"))


def test_k_changes_both_sides_and_the_url(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1", k="5")
    assert [len(cards(app, side)) for side in (0, 1)] == [5, 5]
    app.number_input(key="k").set_value(7).run()
    assert [len(cards(app, side)) for side in (0, 1)] == [7, 7]
    assert app.query_params["k"] == "7"
    app.number_input(key="k").set_value(12).run()
    assert "k" not in app.query_params


def test_previous_and_next_stay_in_the_slice(visit: Any, complete_study: Study) -> None:
    wrong = np.flatnonzero(~complete_study.predictions("test")["correct"])
    app = visit(complete_study, "explain", test=f"test-{wrong[0]}", result="wrong")
    assert app.button(key="previous").disabled
    app.button(key="next").click().run()
    assert app.query_params["test"] == f"test-{wrong[1]}"
    assert f"<b>2</b> of {len(wrong)}" in words(app)
    app.button(key="previous").click().run()
    assert app.query_params["test"] == f"test-{wrong[0]}"
    right = np.flatnonzero(complete_study.predictions("test")["correct"])
    outside = visit(complete_study, "explain", test=f"test-{right[0]}", result="wrong")
    assert f"<b>not among</b> {len(wrong)}" in words(outside)


def test_the_url_is_complete(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-3", result="wrong", k="4")
    wanted = {
        "study": complete_study.dataset.fingerprint[:8],
        "algorithm": "cnn",
        "result": "wrong",
    }
    wanted |= {"method": "trak", "k": "4", "test": "test-3"}
    assert dict(app.query_params) == wanted


def test_without_an_example_explain_offers_mistakes(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain")
    assert "Which test picture should be explained?" in words(app)
    margins = complete_study.predictions("test")["output"].to_numpy()
    shown = [margins[card["row"]] for card in cards(app)]
    assert shown == sorted(shown)
    assert all(card["wrong"] for card in cards(app))


def test_cards_link_to_the_training_page(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1", result="wrong")
    card = cards(app, 0)[0]
    assert card["href"].startswith("training?")
    query = parse_qs(urlparse(card["href"]).query)
    assert query["train"] == [f"train-{card['row']}"]
    assert query["test"] == ["test-1"]
    assert query["result"] == ["wrong"]


def test_the_most_likely_classes_are_shown_with_probabilities(
    visit: Any, complete_study: Study
) -> None:
    shown = words(visit(complete_study, "explain", test="test-1"))
    found = read_probabilities(complete_study, "test", 1)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert f"<span>{found.max():.1%}</span>" in shown
    assert shown.count("<li data-label=") == 4


def test_the_true_label_is_always_listed() -> None:
    html = probabilities(list("abcdef"), np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01]), "f")
    assert html.count("<li") == 4
    assert '<li data-label="true"><span><bdi class="dl-clamp" title="f">' in html
    assert "1.0%" in html


def test_each_side_shows_its_labels_and_shares(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1")
    rows, scores, _, oppose_scores = find_influences(complete_study, 1, 12)
    labels = complete_study.table("train")["label"].iloc[rows]
    support, oppose = component(app, "groups")["groups"]
    assert sum(number for _, number in support["makeup"]) == 12
    label, number = support["makeup"][0]
    assert number == (labels == label).sum() == labels.value_counts().iloc[0]
    totals = read_totals(complete_study)
    assert sum(support["shares"]) == pytest.approx(scores.sum() / totals["test_support"][1])
    assert sum(oppose["shares"]) == pytest.approx(oppose_scores.sum() / totals["test_oppose"][1])


def test_an_explanation_can_be_exported(visit: Any, complete_study: Study) -> None:
    explanation = complete_study.explain("test-1", k=5)
    exported = json.loads(as_json(explanation, "f00d"))
    assert exported["data_fingerprint"] == "f00d"
    assert [one["row"] for one in exported["supporting"]] == list(
        find_influences(complete_study, 1, 5)[0]
    )
    lines = list(csv.DictReader(io.StringIO(as_csv(explanation))))
    assert [float(line["score"]) for line in lines] == [
        one.score for one in explanation.supporting + explanation.opposing
    ]
    app = visit(complete_study, "explain", test="test-1", k="5")
    assert [button.proto.label for button in app.get("download_button")] == ["JSON", "CSV"]
    scope: dict[str, Any] = {}
    exec(app.code[0].value, scope)
    assert scope["explanation"] == explanation


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_texts_are_never_formulas(complete_study: Study, start: str) -> None:
    evil = f"{start}cmd|'/c calc'!A1"
    influence = Influence(1, evil, evil, -0.5)
    explanation = replace(complete_study.explain(0, k=1), id=evil, opposing=[influence])
    line = list(csv.DictReader(io.StringIO(as_csv(explanation))))[-1]
    assert line["id"] == line["label"] == line["test_id"] == f"'{evil}"
    assert line["score"] == "-0.5"  # Numbers stay numbers.


def test_an_unknown_example_gets_a_notice(visit: Any, complete_study: Study) -> None:
    for test in ("nobody", "40", "-1", "<b>x</b>", "9" * 400, "²"):
        app = visit(complete_study, "explain", test=test)
        assert "There is no test picture" in words(app)
        assert "<b>x</b>" not in words(app)
        assert app.button(key="back").label == "Go to the test set"


def test_an_example_by_its_row_number(visit: Any, complete_study: Study) -> None:
    assert "test-7" in words(visit(complete_study, "explain", test="7"))


@given(some.floats(-60, 60))
def test_odds_match_the_margin(margin: float) -> None:
    text = odds(margin)
    if "even" in text:
        assert abs(margin) < 0.1
    else:
        assert ("for the" in text) == (margin > 0)
        if "over" in text:
            assert math.exp(abs(margin)) >= 1000
        else:
            number = float(text.split("about ")[1].split(" to")[0])
            assert number == pytest.approx(math.exp(abs(margin)), rel=0.06)


# --- side by side --------------------------------------------------------------------------------


def test_two_examples_side_by_side(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1", beside="test-2", k="300")
    rows = [cards(app, side, gallery=place) for place in (0, 1) for side in (0, 1)]
    shown = [{card["row"] for card in rows[place] + rows[place + 1]} for place in (0, 2)]
    shared = shown[0] & shown[1]
    assert f"<b>{len(shared):,}</b> of the" in words(app)
    tagged = {card["row"] for group in rows for card in group if card.get("tag") == "on both"}
    assert tagged == shared != set()
    bars = [card["bar"] for group in rows for card in group]
    assert [bar for bar in bars if bar > 0.999] == [pytest.approx(1)]  # one scale for both
    app.button(key="close_beside").click().run()
    assert "beside" not in app.query_params
    app.text_input(key="beside").set_value("#2").run()
    assert app.query_params["beside"] == "test-2"
    app = visit(complete_study, "explain", test="test-1", beside="nobody")
    assert "There is no test picture “nobody” to show beside" in words(app)
