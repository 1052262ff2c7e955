"""The Explore page in every state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from dashboard.parts.gallery.gallery import thumbnail_side
from dashboard.slice_parameters import RANKS, SORTS
from engine.api import Study
from engine.study.lock import locked
from engine.study.rankings import read_top
from tests.builders.page_contents import cards, component, words
from tests.builders.synthetic_study import CLASSES, write_study


def test_explore_shows_every_test_picture(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study)
    shown = cards(app)
    assert [card["row"] for card in shown] == list(range(40))
    assert "<b>40</b> / 40" in words(app)
    first, table = shown[0], complete_study.table("test")
    assert first["name"] == table["label"][0]
    sheets = component(app, "groups")["sheets"]
    assert sheets == f"/dataloupe/sprites/{complete_study.dataset.fingerprint}/test/{{}}.webp"
    assert "explain?" in first["href"]
    assert "test=test-0" in first["href"]


def test_wrong_predictions_are_marked_by_symbol_and_text(visit: Any, complete_study: Study) -> None:
    predictions = complete_study.predictions("test")
    for card, (_, row) in zip(cards(visit(complete_study)), predictions.iterrows(), strict=True):
        assert card["wrong"] is not row["correct"]
        assert card["note"].startswith("✓" if row["correct"] else "✕")
        assert ("correct" if row["correct"] else "wrong") in card["hint"]


def test_filters_apply_to_the_gallery_and_the_url(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study)
    app.selectbox(key="label").select(CLASSES[2]).run()
    table = complete_study.table("test").join(complete_study.predictions("test"))
    wanted = np.flatnonzero(table["label"] == CLASSES[2])
    assert [card["row"] for card in cards(app)] == list(wanted)
    assert app.query_params["label"] == CLASSES[2]
    app.session_state["result"] = "wrong"
    app.query_params["result"] = "wrong"
    app.run()
    wanted = np.flatnonzero((table["label"] == CLASSES[2]) & ~table["correct"])
    assert f"<b>{len(wanted):,}</b> / 40" in words(app)


def test_filter_options_show_counts(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, result="wrong")
    table = complete_study.table("test").join(complete_study.predictions("test"))
    wrong = table[~table["correct"]]
    options = app.selectbox(key="label").options
    for name, option in zip(CLASSES, options, strict=True):
        some, of = (int((part["label"] == name).sum()) for part in (wrong, table))
        assert option == (f"{name} ({some} / {of})" if some < of else f"{name} ({of})")
    assert app.get("segmented_control")[0].options[2] == f"Wrong ({len(wrong)})"
    assert app.slider(key="output_range").label == f"Margin ({len(wrong)})"


def test_a_url_restores_the_slice(visit: Any, complete_study: Study) -> None:
    table = complete_study.table("test").join(complete_study.predictions("test"))
    label, predicted = table[~table["correct"]].iloc[0][["label", "predicted"]]
    app = visit(complete_study, label=label, predicted=predicted, result="wrong")
    assert app.selectbox(key="label").value == label
    assert app.selectbox(key="predicted").value == predicted
    wanted = table[(table["label"] == label) & (table["predicted"] == predicted)]
    assert [card["row"] for card in cards(app)] == list(wanted.index)


OF_OTHER_TASKS = ("error", "similarity", *(f"-{name}" for name in RANKS))


@pytest.mark.parametrize("sort", [sort for sort in SORTS if sort not in OF_OTHER_TASKS])
def test_a_sort_order_applies_to_the_gallery_and_to_next(
    visit: Any, complete_study: Study, sort: str
) -> None:
    table = complete_study.predictions("test")
    keys = {
        "output": table["output"],
        "-output": -table["output"],
        "confidence": table["confidence"],
        "support": -read_top(complete_study)["support_score"][:, 0],
        "oppose": read_top(complete_study)["oppose_score"][:, 0],
    }
    wanted = np.argsort(np.asarray(keys[sort]), kind="stable")
    app = visit(complete_study, sort=sort)
    assert [card["row"] for card in cards(app)] == list(wanted)
    assert app.selectbox(key="sort").value == sort
    explain = visit(complete_study, "explain", test=str(wanted[1]), sort=sort)
    assert "<b>2</b> of 40" in words(explain)
    explain.button(key="next").click().run()
    assert explain.query_params["test"] == f"test-{wanted[2]}"
    app.selectbox(key="sort").select("Any").run()
    assert "sort" not in app.query_params
    assert [card["row"] for card in cards(app)] == list(range(40))


def test_a_range_of_margins(visit: Any, complete_study: Study) -> None:
    margin = complete_study.predictions("test")["output"]
    app = visit(complete_study, margin="-1..2", page="1")
    wanted = np.flatnonzero((margin >= -1) & (margin <= 2))
    assert 0 < len(wanted) < 40
    assert [card["row"] for card in cards(app)] == list(wanted)
    assert app.slider(key="output_range").value == (-1.0, 2.0)
    options = app.selectbox(key="label").options
    assert sum(int(option.rsplit("(")[-1].split()[0].strip(")")) for option in options) == len(
        wanted
    )
    assert app.slider(key="output_range").label == f"Margin ({len(wanted)} / 40)"
    app.slider(key="output_range").set_value((0.0, 2.0)).run()
    assert app.query_params["range"] == "0..2"
    slider = app.slider(key="output_range")
    slider.set_value((slider.min, slider.max)).run()
    assert not {"margin", "range"} & set(app.query_params)
    assert len(cards(app)) == 40


def test_an_empty_slice_offers_to_show_all(visit: Any, complete_study: Study) -> None:
    table = complete_study.predictions("test")
    app = visit(complete_study, label=CLASSES[0], predicted=CLASSES[4])
    assert not (
        (table["predicted"] == CLASSES[4]) & (complete_study.table("test")["label"] == CLASSES[0])
    ).any()
    assert "No pictures match" in words(app)
    app.button(key="show_all").click().run()
    assert len(cards(app)) == 40
    assert "label" not in app.query_params


def test_a_confusion_sets_both_class_filters(visit: Any, complete_study: Study) -> None:
    table = complete_study.table("test").join(complete_study.predictions("test"))
    wrong = table[~table["correct"]]
    often = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False)
    (label, predicted), number = often.index[0], often.iloc[0]
    app = visit(complete_study, page="1")
    box = app.selectbox(key="pair")
    assert len(box.options) == len(often)
    assert box.options[0].endswith(f" ({number})")
    box.select_index(0).run()
    wanted = table[(table["label"] == app.query_params["label"]) & ~table["correct"]]
    wanted = wanted[wanted["predicted"] == app.query_params["predicted"]]
    assert [card["row"] for card in cards(app)] == list(wanted.index)
    assert len(wanted) == number
    app = visit(complete_study, label=label, predicted=predicted)
    assert app.selectbox(key="pair").value is not None
    assert visit(complete_study, label=label, predicted=label).selectbox(key="pair").value is None
    never = visit(complete_study, label=CLASSES[0], predicted=CLASSES[4])
    assert never.selectbox(key="pair").options[0] == f"{CLASSES[0]} → {CLASSES[4]} (0)"


@pytest.mark.parametrize(("search", "rows"), [("test-3", [3, *range(30, 40)]), ("T-39", [39])])
def test_search_by_id(visit: Any, complete_study: Study, search: str, rows: list[int]) -> None:
    app = visit(complete_study)
    app.text_input(key="id").set_value(search).run()
    assert app.query_params["id"] == search
    assert [card["row"] for card in cards(app)] == rows
    assert app.text_input(key="id").label == f"Search by id ({len(rows)} / 40)"
    app.text_input(key="id").set_value("").run()
    assert "id" not in app.query_params


@pytest.mark.parametrize("search", [".*", "[", "' or 1=1 --", "<b>x</b>", "🦊", "x" * 999])
def test_a_search_is_treated_as_plain_text(visit: Any, complete_study: Study, search: str) -> None:
    app = visit(complete_study, id=search)
    assert "<b>0</b> / 40" in words(app)
    assert "<b>x</b>" not in words(app)


def test_small_thumbnails_show_more_from_the_same_place(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=2000)
    app = visit(study, page="10")
    assert cards(app)[0]["row"] == 1080
    app.get("button_group")[1].select("small")
    app.run()
    assert (app.query_params["size"], app.query_params["page"]) == ("small", "2")
    shown = cards(app)
    assert [card["row"] for card in shown] == list(range(960, 1920))
    assert set(shown[0]) == {"row", "hint", "wrong", "href"}
    assert shown[0]["hint"].startswith("test-960: ")


def test_pages_of_the_gallery(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=250)
    assert [card["row"] for card in cards(visit(study))] == list(range(120))
    for page in ("3", "200"):
        assert [card["row"] for card in cards(visit(study, page=page))] == list(range(240, 250))
    app = visit(study, page="2")
    assert app.get("pagination")[0].default == 2
    app.selectbox(key="label").select(CLASSES[0]).run()
    assert "page" not in app.query_params


@given(some.integers(1, 96), some.integers(40, 300))
def test_thumbnail_sides_are_multiples_of_the_cell(cell: int, wanted: int) -> None:
    side = thumbnail_side(cell, wanted)
    assert side % cell == 0
    assert side <= max(cell, wanted)


def test_a_build_is_one_line_above_the_examples(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", stage="data")
    idle = words(visit(study))
    assert "Predictions appear as soon as they are computed</b> · no build is running" in idle
    with locked(study):
        app = visit(study)
    assert "computed</b> · Train checkpoints: 0 of 5" in words(app)
    assert "dl-building" not in words(app)
    assert cards(app)
