"""Similar training examples next to influential ones, on Explain and Training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboard.parts.gallery.similar_examples import ordinal
from engine import store
from engine.api import Study
from engine.store import layout
from engine.study.rankings import read_top
from tests.builders.page_contents import cards, group_words, words
from tests.builders.synthetic_study import write_study


def test_similar_training_pictures_are_sorted(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1", show="similar", k="6")
    rows, similarities = complete_study.neighbours("test", 1, 6)
    shown = cards(app)
    assert [card["row"] for card in shown] == list(rows)
    assert [card["score"] for card in shown] == [f"{one:.3f}" for one in similarities]
    labels = complete_study.table("train")["label"].iloc[rows]
    label = complete_study.table("test")["label"][1]
    (about,) = group_words(app)
    assert f"{(labels == label).sum()} of 6 are labeled “{label}”" in about
    assert "mean cosine of the model's embeddings over 5 checkpoints" in about
    labels = [one.proto.popover.label for one in app.get("popover")]
    assert not any(label.startswith("TRAK") for label in labels)


@pytest.mark.parametrize("show", ["influential", "similar", "both"])
def test_the_switch_is_in_the_url(visit: Any, complete_study: Study, show: str) -> None:
    app = visit(complete_study, "explain", test="test-1", show=show)
    assert app.get("button_group")[0].value == show
    assert len(group_words(app)) == {"influential": 2, "similar": 1, "both": 3}[show]
    assert (f"show={show}" in cards(app)[0]["href"]) is (show != "influential")


def test_both_marks_shared_and_only_influential_examples(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1", show="both")
    nearest, top = list(complete_study.neighbours("test", 1, 20)[0]), read_top(complete_study)
    marks = []
    for side in (0, 1):
        for card in cards(app, side):
            marks.append(card["mark"])
            if card["row"] in nearest:
                assert card["mark"] == "both"
                assert card["tag"].startswith("similar, ")
                assert str(nearest.index(card["row"]) + 1) in card["tag"]
            else:
                assert (card["mark"], card["tag"]) == ("alone", "not similar")
    assert {"both", "alone"} == set(marks)
    for card in cards(app, 2):
        strongest = [
            sign for sign in ("support", "oppose") if card["row"] in top[f"{sign}_index"][1]
        ]
        if strongest:
            assert card["mark"] == "both"
            assert card["tag"].startswith(f"{strongest[0]}s, ")
        else:
            assert card["tag"] == "little influence"
            assert "mark" not in card
    assert f"{marks.count('alone')} of the {len(marks)} influential pictures" in words(app)


def test_an_invalid_choice_is_reported_and_ignored(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "explain", test="test-1", show="<b>")
    assert len(group_words(app)) == 2
    assert "influential, similar, both, not “&lt;b&gt;”" in words(app)


def test_similar_examples_need_no_scores(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", stage="predictions")
    app = visit(study, "explain", test="test-1", show="similar")
    assert [card["row"] for card in cards(app)] == list(study.neighbours("test", 1, 12)[0])
    assert all("tag" not in card for card in cards(app))
    assert "as soon as they are scored" in words(visit(study, "explain", test="1", show="both"))


def test_a_study_without_similarity_waits_for_it(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    layout.similarity_file(study.root, "cnn").unlink()
    for show in ("similar", "both"):
        app = visit(study, "explain", test="test-1", show=show)
        assert "appear here as soon as they are found" in words(app)
        assert app.get("button_group")[0].value == show
    assert len(group_words(visit(study, "explain", test="test-1"))) == 2
    shown = words(visit(study, "training", train="3"))
    assert f"appear here after `dataloupe build {study.root}`" in shown


def test_a_model_without_embeddings_shows_the_reason(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    path = layout.similarity_file(study.root, "cnn")
    reason = "the architecture 'python:mine:net' has no method `embed`"
    store.write_json(path, {"checkpoints": 0, "reason": reason}, "synthetic")
    app = visit(study, "explain", test="test-1", show="similar")
    assert "No similar pictures without embeddings" in words(app)
    assert "python:mine:net" in words(app)
    assert len(group_words(visit(study, "explain", test="test-1"))) == 2
    assert "are not available: the architecture" in words(visit(study, "training", train="3"))


def test_training_marks_similar_examples_with_a_different_label(
    visit: Any, complete_study: Study
) -> None:
    app = visit(complete_study, "training", train="train-3", k="15")
    rows, _ = complete_study.neighbours("train", 3, 15)
    shown = cards(app, gallery=1)
    labels = complete_study.table("train")["label"]
    assert [card["row"] for card in shown] == list(rows)
    for card in shown:
        other = labels[card["row"]] != labels[3]
        assert (card.get("tag") == "different label") is other
        assert ("possible label conflict" in card["hint"]) is other
    others = int((labels.iloc[rows] != labels[3]).sum())
    assert 0 < others < 15
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    about = [gallery for gallery in galleries if "groups" in gallery][1]["groups"][0]["words"]
    assert f"{others} of 15 have a different label" in about


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (112, "112th")],
)
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number) == text
