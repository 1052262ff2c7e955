"""The Live page of pictures with captions: both, or one part alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import dashboard.read.live_queries
from dashboard.parts.controls.live_result_download import result_as_json
from dashboard.read.live_queries import Workers
from engine import Study
from engine.applications.live import Query, run_query
from engine.tasks import Given
from tests.applications.test_live_pairs import caption_of, picture_of
from tests.builders.page_contents import cards, words


@pytest.fixture
def live(visit: Any, workers: Workers, monkeypatch: pytest.MonkeyPatch, pairs_study: Study) -> Any:
    """Open the page with what is given."""
    st.cache_resource.clear()
    monkeypatch.setattr(dashboard.read.live_queries, "_workers", lambda: workers)

    def open_page(given: Given, **parameters: str) -> AppTest:
        app = visit(pairs_study, "live", **parameters)
        if "picture" in given:
            app.file_uploader(key="own_picture").upload("a.png", given["picture"], "").run()
        if "text" in given:
            app.text_area(key="own_text").input(given["text"]).run()
        assert not app.exception
        return app

    return open_page


def test_the_page_asks_for_either(live: Any) -> None:
    shown = words(live({}))
    assert "Which picture or caption should be explained?" in shown
    assert "models then find the other among the test pairs" in shown


def test_a_pair_is_explained(live: Any, pairs_study: Study) -> None:
    given: Given = {"picture": picture_of(pairs_study, 3), "text": caption_of(pairs_study, 3)}
    app = live(given)
    answer = run_query(Query(pairs_study.root, "towers", given))
    assert [card["row"] for card in cards(app)] == list(answer.support[:12])
    assert [card["row"] for card in cards(app, 1)] == list(answer.oppose[:12])
    shown = words(app)
    assert "how well picture and caption fit" in shown
    assert f"{answer.measures['similarity']:.3f}" in shown
    assert "Rank of the caption" in shown
    assert "for your pair" in shown
    assert "dl-own" in shown
    app.query_params["output"] = "caption-side"
    app.run()
    side = run_query(Query(pairs_study.root, "towers", given, "caption-side"))
    assert [card["row"] for card in cards(app)] == list(side.support[:12])


def test_a_picture_finds_captions_and_another_can_be_chosen(live: Any, pairs_study: Study) -> None:
    given: Given = {"picture": picture_of(pairs_study, 3)}
    app = live(given)
    answer = run_query(Query(pairs_study.root, "towers", given))
    assert answer.completed is not None
    assert [card["row"] for card in cards(app)] == list(answer.completed.rows[:5])
    assert [card["row"] for card in cards(app, gallery=1)] == list(answer.support[:12])
    assert "The captions that models find" in json.dumps(found_groups(app))
    second = int(answer.completed.rows[1])
    app.selectbox(key="live_completed_by").select(second).run()
    other = run_query(Query(pairs_study.root, "towers", given, completed_by=second))
    assert [card["row"] for card in cards(app, gallery=1)] == list(other.support[:12])
    assert [card.get("tag") for card in cards(app)][:2] == [None, "explained here"]
    assert "for your picture" in words(app)
    # What is given anew is completed anew.
    app.text_area(key="own_text").input(caption_of(pairs_study, 3)).run()
    assert "live_completed_by" not in app.session_state
    whole = {**given, "text": caption_of(pairs_study, 3)}
    support = run_query(Query(pairs_study.root, "towers", whole)).support
    assert [card["row"] for card in cards(app)] == list(support[:12])


def found_groups(app: AppTest) -> list[str]:
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    return [group["title"] for one in galleries if "groups" in one for group in one["groups"]]


def test_a_caption_finds_pictures(live: Any, pairs_study: Study) -> None:
    given: Given = {"text": "a large red circle"}
    app = live(given)
    answer = run_query(Query(pairs_study.root, "towers", given))
    assert answer.completed is not None
    assert [card["row"] for card in cards(app)] == list(answer.completed.rows[:5])
    assert found_groups(app)[0] == "The pictures that models find"
    assert "dl-picture" in words(app)
    assert "how much the caption speaks for its picture" in words(app)
    exported = json.loads(result_as_json(pairs_study, "towers", answer, 4))
    assert exported["text"] == "a large red circle"
    assert exported["picture"] is None
    assert exported["completed"]["part"] == "picture"
    ids = pairs_study.table("test")["id"]
    assert [one["id"] for one in exported["completed"]["found"]] == [
        ids[row] for row in answer.completed.rows
    ]
    assert np.isclose(exported["completed"]["found"][0]["similarity"], answer.completed.fits[0])


def test_a_caption_without_words_gets_one_line(live: Any) -> None:
    shown = words(live({"text": "…"}))
    assert "This caption cannot be explained" in shown
    assert "The text has no words: write some." in shown
