"""Every page of a study of pictures with captions opens, and shows both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.applications.live import StoredQuery, explain_stored
from engine.store.quantities import ACCURACY, SCORE, SIMILARITY
from engine.study.capabilities import missing
from engine.study.models import read_mean_records
from engine.study.removal_sets import keep_set, removal_set
from engine.study.retrieval import read_recall
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, component, everything, words


@pytest.fixture(scope="module")
def shapes(pairs_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A copy of the study with a removal set."""
    study = copy_of(pairs_study, tmp_path_factory.mktemp("shapes") / "study")
    keep_set(study, [1, 2, 3], "three pairs")
    return study


PAGES: dict[str, tuple[str, dict[str, str], str]] = {
    "overview": ("overview", {}, "Shapes with captions"),
    "explore": ("explore", {}, "Alignment (24)"),
    "explain nothing": ("explain", {}, "test-"),
    "explain": ("explain", {"test": "test-3"}, "how well picture and caption fit"),
    "training": ("training", {"train": "train-5"}, "train-5"),
    "brittle": ("brittle", {}, "not calibrated"),
    "map": ("map", {}, "Map"),
    "what if": ("what_if", {"set": "SET"}, "three pairs"),
    "unlearn": ("unlearn", {}, "has none of them"),
    "compare": ("compare", {}, "algorithm"),
    "live": ("live", {}, "Live"),
    "quality": ("quality", {}, "LDS"),
    "provenance": ("provenance", {}, "image-text"),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens(name: str, shapes: Study, visit: Any) -> None:
    view, parameters, shown = PAGES[name]
    if "set" in parameters:
        parameters = {"set": keep_set(shapes, [1, 2, 3], "three pairs").key}
    text = everything(visit(shapes, view, **parameters))
    assert shown.lower() in text.lower()


def test_overview_shows_recall_of_both_directions(shapes: Study, visit: Any) -> None:
    text, recall = everything(visit(shapes, "overview")), read_recall(shapes)
    for k in (1, 5, 10):
        assert f"R@{k}" in text
        assert all(ACCURACY.text(of[k]) in text for of in recall.values())
    wrong = shapes.predictions("test")[lambda table: ~table["correct"]]
    worst = wrong["output"].sort_values(kind="stable").index[:6]
    assert [card["row"] for card in cards(visit(shapes, "overview"))] == worst.tolist()


def test_a_training_pair_is_told_in_words_of_pairs(shapes: Study, visit: Any) -> None:
    wrong = int(np.flatnonzero(~shapes.predictions("train")["correct"])[0])
    text = everything(visit(shapes, "training", train=f"train-{wrong}"))
    assert "check whether the text is correct" in text
    assert "predict a lower alignment" in text


def test_brittle_pairs_are_listed(shapes: Study, visit: Any, tmp_path: Path) -> None:
    study = give_units(copy_of(shapes, tmp_path / "calibrated"), "towers")
    text = everything(visit(study, "brittle", likely="50", at_most="100"))
    assert "1 of 24 are predicted to flip when at most 100 training" in text
    opened = everything(visit(study, "brittle", likely="50", at_most="100", test="test-12"))
    assert "Lead over what is retrieved instead" in opened


def test_cards_have_picture_and_caption(shapes: Study, visit: Any) -> None:
    found = cards(visit(shapes))
    texts = shapes.table("test")["text"]
    assert [card["text"] for card in found[:5]] == list(texts[:5])
    assert missing(shapes, "outcomes") == ""
    gallery = component(visit(shapes), "groups")
    assert gallery["text"]
    assert "/test/{}.webp" in gallery["sheets"]


def test_explain_shows_the_pair_and_what_it_finds_instead(shapes: Study, visit: Any) -> None:
    table = shapes.predictions("test")
    wrong = int(np.flatnonzero(~table["correct"])[0])
    app = visit(shapes, "explain", test=f"test-{wrong}")
    shown = words(app)
    assert "dl-picture" in shown
    assert shapes.table("test")["text"][wrong] in shown
    assert "which is ," not in shown
    assert SIMILARITY.text(table["similarity"][wrong]) in shown
    kept = read_mean_records(shapes, "test", "towers", slice(wrong, wrong + 1))["retrieval"][0]
    instead = [int(cosines.argmax()) - 1 for cosines in kept if cosines.argmax() > 0]
    assert instead
    for number, row in enumerate(instead):
        (card,) = cards(app, gallery=number)
        assert card["row"] == row
    assert f"test pair {instead[0]}" in table["predicted"][wrong]
    right = int(np.flatnonzero(table["correct"])[0])
    assert "found instead" not in everything(visit(shapes, "explain", test=f"test-{right}"))


def test_explain_tells_which_side_the_strongest_pairs_act_through(
    shapes: Study, visit: Any
) -> None:
    """The two numbers of a training pair are its scores for either side."""
    app = visit(shapes, "explain", test="test-3")
    app.button(key="by_part").click().run()
    assert app.query_params["over"] == "parts"
    table = words(app).partition("dl-parts")[2].partition("</table>")[0]
    found = [re.sub("<[^>]*>", " ", row).split() for row in table.split("<tr>")[1:]]
    every, sides = shapes.dataset.n_train, []
    for output in ("picture-side", "caption-side"):
        of = explain_stored(StoredQuery(shapes.root, "towers", "test", 3, output, every))
        rows = np.concatenate([of.support, of.oppose]).tolist()
        scores = np.concatenate([of.support_scores, of.oppose_scores]).tolist()
        sides.append(dict(zip(rows, scores, strict=True)))
    assert found[0][-4:] == ["the", "picture", "the", "caption"]
    assert len(found) == 13
    strongest = shapes.explain("test-3", 6)
    listed = [one.row for one in (*strongest.supporting, *strongest.opposing)]
    for row, cells in zip(listed, found[1:], strict=True):
        assert cells == [f"train-{row}", *(SCORE.text(side[row]) for side in sides)]
    app = visit(shapes, "explain", test="test-3", output="picture-side")
    assert "by_part" not in {one.key for one in app.button}


def test_pairs_are_filtered_by_what_is_retrieved_and_by_their_words(
    shapes: Study, visit: Any
) -> None:
    found, data = shapes.predictions("test"), shapes.table("test")
    ranks, alike = found["caption_rank"].to_numpy(), found["similarity"].to_numpy()
    half = float(np.round(np.median(alike), 2))
    cases: dict[str, tuple[dict[str, str], np.ndarray]] = {
        "rank": ({"caption_rank": "2..24"}, ranks >= 2),
        "other rank": ({"picture_rank": "1..1"}, found["picture_rank"].to_numpy() == 1),
        "similarity": ({"similarity": f"-1..{half}"}, alike <= half),
        "both": (
            {"similarity": f"-1..{half}", "caption_rank": "2..24"},
            (ranks > 1) & (alike <= half),
        ),
        "result": ({"result": "wrong"}, ~found["correct"].to_numpy()),
        "words": ({"text": "red"}, data["text"].str.contains("red").to_numpy()),
        "column": ({"group": "shape=circle"}, (data["shape"] == "circle").to_numpy()),
    }
    for name, (parameters, wanted) in cases.items():
        assert 0 < wanted.sum() < len(wanted), name
        app = visit(shapes, **parameters)
        assert [card["row"] for card in cards(app)] == np.flatnonzero(wanted).tolist(), name
    app = visit(shapes, caption_rank="2..24")
    assert "rank of the caption 2 to 24" in {button.label for button in app.button}
    assert app.slider(key="caption_rank_range").value == (2.0, ranks.max())
    least = app.slider(key="similarity_range").min
    app.slider(key="similarity_range").set_value((least, 0.5)).run()
    assert app.query_params["similarity"] == f"{least:g}..0.5"
    assert app.query_params["caption_rank"] == "2..24"


def test_a_group_of_a_column_can_be_removed(shapes: Study, visit: Any, tmp_path: Path) -> None:
    study = copy_of(shapes, tmp_path / "study")
    wanted = np.flatnonzero((study.table("train")["shape"] == "circle").to_numpy())
    app = visit(study, "what_if")
    app.segmented_control(key="by").select("filter").run()
    app.selectbox(key="f_group").select(("shape", "circle")).run()
    (many,) = [one for one in app.number_input if one.label == f"How many of {len(wanted)}"]
    many.set_value(len(wanted)).run()
    app.button(key="ask").click().run()
    assert f"of {len(wanted)} shape circle" in words(app)
    assert removal_set(study, app.query_params["set"]).rows.tolist() == wanted.tolist()


def test_pairs_are_sorted_by_rank_and_similarity(shapes: Study, visit: Any) -> None:
    found = shapes.predictions("test")
    for sort, values in (
        ("-caption_rank", -found["caption_rank"]),
        ("similarity", found["similarity"]),
    ):
        order = np.argsort(values.to_numpy(), kind="stable")
        assert [card["row"] for card in cards(visit(shapes, sort=sort))] == order.tolist()


def test_other_studies_have_no_such_filters(complete_study: Study, visit: Any) -> None:
    app = visit(complete_study, caption_rank="2..24")
    assert len(cards(app)) == 40
    assert "caption_rank_range" not in {slider.key for slider in app.slider}
    assert "caption_rank must be two numbers" in everything(visit(complete_study, caption_rank="x"))
