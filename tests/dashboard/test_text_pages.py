"""Pages of a study of texts: searching, the same words, the tokens of a score."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from dashboard.names import short
from dashboard.parts.gallery.gallery import Card, _excerpt
from dashboard.parts.text.changed_texts import changes
from dashboard.parts.text.shown_text import EXCERPT, LONGEST, in_order, parts, text_html
from dashboard.parts.text.token_shading import shaded_text, shading_html
from dashboard.read import token_shares
from dashboard.slice_parameters import read_slice
from engine.api import Study
from engine.applications.token_queries import TokenQuery, answer
from engine.applications.token_shares import TokenShares
from engine.data.words import word_spans
from engine.store.quantities import BM25
from engine.study.rankings import find_influences
from engine.study.similar_texts import in_both, rows_similar_in_words
from engine.study.text_search import find_texts
from tests.builders.hostile_texts import HOSTILE_TEXTS
from tests.builders.page_contents import cards, component, group_words, words


@pytest.mark.input_case
@pytest.mark.parametrize("case", HOSTILE_TEXTS)
def test_hostile_texts_are_shown_as_text(case: str) -> None:
    text = HOSTILE_TEXTS[case]
    for marks in ([], [(0, 3), (2, 4), (len(text) + 5, len(text) + 9)]):
        assert "".join(part for part, _ in parts(text, marks, LONGEST)).replace("\ufffd", "") in (
            re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text[:LONGEST]).replace("\u2028", " ")
        )
        html = text_html(text, marks)
        tags = re.findall("<[^>]*>", html)
        known = {"<mark>", "</mark>", "</blockquote>", "<p>", "</p>"}
        assert {tag for tag in tags if tag not in known and not tag.startswith("<blockq")} == set()
        assert 'dir="auto"' in html
        assert len(html) < 2 * LONGEST + 500
    shares = np.ones(len(word_spans(text)) + 3)
    shaded = shaded_text(text, word_spans(text), shares, 0.5)
    html = shading_html(shaded, 1.0, True, "title")
    assert not re.search("<(script|img|b onmouse|style)", html)
    assert html.count("<blockquote") == 1
    total = sum(share for _, share in shaded.pieces) + shaded.special
    assert total == pytest.approx(shares.sum())
    item = _excerpt(Card(0, "label", "", "hint", text=text))
    assert len(item["text"]) <= EXCERPT
    assert ("rest" in item) is (len(text) > EXCERPT)


@pytest.mark.parametrize("name", ["a\u202eb", "\u2069\u202eb\u2066", "a\x1bb"])
def test_names_turn_nothing_around(name: str) -> None:
    assert not set(in_order(name)) & set("\u202e\u2066\u2069\x1b")


def test_names_from_right_to_left_are_isolated_in_sentences() -> None:
    assert short("film-1") == "film-1"
    assert short("עברית-1") == "\u2068עברית-1\u2069"
    assert short("a\u202eb") == "ab"
    assert len(short("ا" * 100)) == 62


def test_a_worker_splits_the_score_of_a_pair(text_study: Study) -> None:
    rows, scores, *_ = find_influences(text_study, 3, 1)
    found = answer(TokenQuery(text_study.root, "words", 3, int(rows[0])))
    assert found.scores[0] == pytest.approx(scores[0], rel=1e-3)
    assert found.train[0].sum() + found.train_whole[0] == pytest.approx(scores[0], rel=1e-3)
    assert len(found.train[0]) == text_study.dataset.encoding["max_tokens"]


def test_tokens_of_a_text_and_what_is_outside_of_it() -> None:
    text = "I loved it. And more"
    spans = [(0, 0), (0, 1), (2, 4), (4, 7), (8, 10), (0, 0)]  # [CLS] i lo ##ved it [SEP]
    shares = np.array([0.1, 0.0, 1.0, -0.4, 0.2, 0.3, 0.0, 0.0])
    shaded = shaded_text(text, spans, shares, 0.25)
    assert [text[slice(*span)] for span, _ in shaded.pieces] == ["I", "lo", "ved", "it"]
    assert shaded.special == pytest.approx(0.4)
    assert shaded.unread
    html = shading_html(shaded, shaded.largest, False, "x")
    assert 'title="supports: +1.00">lo</span>' in html
    assert 'title="opposes: −0.400">ved</span>' in html
    assert "Strongest: <bdi>lo</bdi> <b>+1.00</b>, <bdi>ved</bdi> <b>−0.400</b>" in html
    assert "Special tokens: <b>+0.400</b>. Whole text, no single token: <b>+0.250</b>" in html
    assert "The model does not read the faded end" in html
    assert html.count("data-strong") == 3
    assert "<ruby>" not in html
    assert "<ruby>lo<rt" in shading_html(shaded, shaded.largest, True, "x")


def test_slices_of_texts_in_the_url(text_study: Study) -> None:
    dataset = text_study.dataset
    problems: list[str] = []
    query = {"text": ' "the film" ', "length": "5..40"}
    found = read_slice(query, dataset, problems)
    assert not problems
    assert found.parameters() == {"text": '"the film"', "length": "5..40"}
    assert found.words("margin") == 'text has “"the film"”, 5 to 40 words'
    for text, shown in (("5..", "at least 5 words"), ("..40", "at most 40 words")):
        found = read_slice({"length": text}, dataset, problems)
        assert (found.parameters(), found.words("margin")) == ({"length": text}, shown)
    for wrong in ("5", "a..b", "9..4", "-1..3", "1..9999999999", "..", "1..2..3", "١..٢"):
        problems = []
        assert read_slice({"length": wrong}, dataset, problems).length is None
        assert "length must be two numbers" in problems[0]


def test_explore_finds_texts_and_links_keep_the_search(visit: Any, text_study: Study) -> None:
    wanted = find_texts(text_study, "test", "loved", (1, 6)).tolist()
    app = visit(text_study, text="loved", length="1..6")
    shown = cards(app)
    assert [card["row"] for card in shown] == wanted != []
    assert all("text=loved" in card["href"] and "length=1..6" in card["href"] for card in shown)
    assert shown[0]["title"] == text_study.table("test")["id"][wanted[0]]
    assert shown[0]["text"] == text_study.table("test")["text"][wanted[0]]
    app.number_input(key="fewest").set_value(5).run()
    assert app.query_params["length"] == "5..6"
    assert len(cards(app)) == len(find_texts(text_study, "test", "loved", (5, 6)))
    app.number_input(key="most").set_value(None).run()
    assert app.query_params["length"] == "5.."
    app.text_input(key="text").set_value('"no such words"').run()
    assert app.query_params["text"] == '"no such words"'
    assert "text has" in words(app)


def test_pictures_have_no_text_filters(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, text="loved", length="1..6")
    assert len(cards(app)) == 40
    assert "text" not in [field.key for field in app.text_input]
    app = visit(complete_study, "explain", test="test-0", show="words")
    assert "show must be one of influential, similar, both, not" in words(app) or app.warning
    assert "Words" not in app.get("button_group")[0].options


def test_explain_tells_the_same_words_from_influence(visit: Any, text_study: Study) -> None:
    app = visit(text_study, "explain", test="test-3", show="words", k="8")
    both = in_both(text_study, 3)
    assert f"<b>{len(both.both)}</b>" in words(app)
    assert f'data-both="{len(both.both)}"' in words(app)
    supporting, similar = cards(app, 0), cards(app, 1)
    rows, scores = rows_similar_in_words(text_study, "test", 3, 20)
    assert [card["row"] for card in similar] == rows[:8].tolist()
    assert [card["score"] for card in similar] == [BM25.text(score) for score in scores[:8]]
    for card in supporting:
        same = card["row"] in rows
        assert card["tag"].startswith("same words, " if same else "other words")
    for card in similar:
        assert "".join(part for part, _ in card["parts"]) == card["text"]
        assert any(marked for _, marked in card["parts"])
    assert "By BM25" in group_words(app)[1]


def test_training_texts_are_found_by_their_words(visit: Any, text_study: Study) -> None:
    app = visit(text_study, "training", find='"loved the soup"')
    wanted = find_texts(text_study, "train", '"loved the soup"')
    assert [card["row"] for card in cards(app)] == wanted.tolist()
    assert f"{len(wanted)} training texts match." in group_words(app)[0]
    app.text_input(key="find").set_value("").run()
    assert "Most influential" in str(component(app, "groups")["groups"][0]["title"])


Asked = list[tuple[int, int, str | None]]
"""Test row, training row and output of each."""


@pytest.fixture
def some_shares(monkeypatch: pytest.MonkeyPatch, text_study: Study) -> Asked:
    """Token shares without models; gives the pairs and outputs that were asked for."""
    asked: Asked = []

    def shares_of(
        study: Study,
        algorithm: str,
        test_row: int,
        training_row: int,
        output: str | None,
        who: str,
    ) -> TokenShares:
        asked.append((test_row, training_row, output))
        places = np.zeros(8)
        places[:3] = 0.5, -0.25, 0.125
        return TokenShares(
            training_rows=np.array([training_row]),
            scores=np.array([0.5]),
            checkpoints=2,
            train=[places],
            train_whole=np.array([0.125]),
            test=[places[::-1].copy()],
            test_whole=np.array([0.0]),
        )

    monkeypatch.setattr(token_shares, "shares_of", shares_of)
    return asked


def test_tokens_are_shaded_on_request(visit: Any, text_study: Study, some_shares: Asked) -> None:
    app = visit(text_study, "explain", test="test-3")
    assert not some_shares
    strongest = cards(app)[0]["row"]
    app.selectbox(key="tokens").select(strongest).run()
    assert some_shares == [(3, strongest, None)]
    assert app.query_params["tokens"] == text_study.table("train")["id"][strongest]
    shown = words(app)
    first, second, _ = text_study.table("train")["text"][strongest].split()[:3]
    assert f'title="supports: +0.500">{first}</span>' in shown
    assert f'title="opposes: −0.250">{second}</span>' in shown
    assert "for <bdi>the margin of the true label</bdi>, over 2 checkpoints" in shown
    assert "<ruby>" not in shown
    app.toggle(key="token_numbers").set_value(True).run()
    assert f"<ruby>{first}<rt" in words(app)


def test_tokens_of_the_pair_on_training(visit: Any, text_study: Study, some_shares: Asked) -> None:
    app = visit(text_study, "training", train="train-5", test="test-3")
    assert not some_shares
    app.button(key="split_tokens").click().run()
    assert some_shares == [(3, 5, None)]
    assert "dl-two-texts" in words(app)
    assert "for <bdi>the margin of the true label</bdi>" in words(app)


def test_tokens_are_those_of_the_chosen_output(
    visit: Any,
    text_study: Study,
    some_shares: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dashboard.read.output_scores.in_explainer", lambda f, query, who: f(query))
    other = next(
        name for name in text_study.dataset.classes if name != text_study.table("test")["label"][3]
    )
    app = visit(text_study, "explain", test="test-3", output=f"class:{other}", tokens="train-5")
    assert some_shares == [(3, 5, f"class:{other}")]
    assert f"for <bdi>the margin of “{other}”</bdi>, over" in words(app)
    app = visit(text_study, "training", train="train-5", test="test-3", output=f"class:{other}")
    assert "These scores are for the margin of the true label." in words(app)
    assert f"Those for the margin of “{other}” are computed on Explain" in words(app)


def test_changed_words_are_marked() -> None:
    assert changes("I loved it", "I really hated it") == [(2, 14)]
    assert changes("same", "same") == []
