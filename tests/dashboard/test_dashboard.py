"""Every page in every state, in-process; and that pages never need torch."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlparse

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest

from dashboard.__main__ import server_config
from dashboard.components.cards import signed
from dashboard.components.confusion import confusion_counts, most_mistaken
from dashboard.components.export import as_csv, as_json, rows_as_csv, rows_as_json
from dashboard.components.gallery import thumbnail_side
from dashboard.components.likeness import ordinal
from dashboard.components.standing import rank_words
from dashboard.components.subject import odds, probabilities
from dashboard.data import STUDY_VARIABLE, Examples, mix_ups
from dashboard.location import Location
from dashboard.slices import MOST_PICKED, SORTS, Slice, position_in_slice, read_rows, rows_text
from engine import store
from engine.attribution.datamodels.bank import BankImport
from engine.store.errors import DataloupeError
from engine.store.records import Influence
from engine.study.reader import Study
from engine.study.slices import save_slice, saved_slices
from tests.builders.copies import copy_of
from tests.builders.synthetic_study import CLASSES, write_predictions, write_scores, write_study
from tests.conftest import APP

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "🦊 fox **bold** :red[x] `code` $x$",
    "a" * 500,
    "\"quoted\" & 'both' [link](http://x)",
    "=cmd()",
)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("studies") / "complete", n_train=60, n_test=40)


def words(app: AppTest) -> str:
    """All of our own HTML on the page, without the style sheet."""
    return "\n".join(part.value for part in app.html if not part.value.startswith("<style"))


def cards(app: AppTest, group: int = 0, gallery: int = 0) -> list[dict[str, Any]]:
    """What a gallery of the page shows."""
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    found = [gallery for gallery in galleries if "groups" in gallery]
    items: list[dict[str, Any]] = found[gallery]["groups"][group]["items"]
    return items


def group_words(app: AppTest) -> list[str]:
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    gallery = next(gallery for gallery in galleries if "groups" in gallery)
    return [group["words"] for group in gallery["groups"]]


# --- Explore -----------------------------------------------------------------------------------


def test_explore_shows_every_test_picture(visit: Any, complete: Study) -> None:
    app = visit(complete)
    shown = cards(app)
    assert [card["row"] for card in shown] == list(range(40))
    assert "<b>40</b> / 40" in words(app)
    first, table = shown[0], complete.table("test")
    assert first["name"] == table["label"][0]
    sheets = component(app, "groups")["sheets"]
    assert sheets == f"/dataloupe/sprites/{complete.dataset.fingerprint}/test/{{}}.webp"
    assert "explain?" in first["href"]
    assert "test=test-0" in first["href"]


def test_a_wrong_prediction_is_marked_by_sign_and_word(visit: Any, complete: Study) -> None:
    predictions = complete.predictions("test")
    for card, (_, row) in zip(cards(visit(complete)), predictions.iterrows(), strict=True):
        assert card["wrong"] is not row["correct"]
        assert card["note"].startswith("✓" if row["correct"] else "✕")
        assert ("correct" if row["correct"] else "wrong") in card["hint"]


def test_filters_narrow_the_gallery_and_the_url(visit: Any, complete: Study) -> None:
    app = visit(complete)
    app.selectbox(key="label").select(CLASSES[2]).run()
    table = complete.table("test").join(complete.predictions("test"))
    wanted = np.flatnonzero(table["label"] == CLASSES[2])
    assert [card["row"] for card in cards(app)] == list(wanted)
    assert app.query_params["label"] == CLASSES[2]
    app.session_state["result"] = "wrong"
    app.query_params["result"] = "wrong"
    app.run()
    wanted = np.flatnonzero((table["label"] == CLASSES[2]) & ~table["correct"])
    assert f"<b>{len(wanted):,}</b> / 40" in words(app)


def test_each_filter_counts_what_it_would_leave(visit: Any, complete: Study) -> None:
    app = visit(complete, result="wrong")
    table = complete.table("test").join(complete.predictions("test"))
    wrong = table[~table["correct"]]
    options = app.selectbox(key="label").options
    for name, option in zip(CLASSES, options, strict=True):
        some, of = (int((part["label"] == name).sum()) for part in (wrong, table))
        assert option == (f"{name} ({some} / {of})" if some < of else f"{name} ({of})")
    assert app.get("segmented_control")[0].options[2] == f"Wrong ({len(wrong)})"
    assert app.slider(key="margins").label == f"Margin ({len(wrong)})"


def test_a_url_restores_the_slice(visit: Any, complete: Study) -> None:
    table = complete.table("test").join(complete.predictions("test"))
    label, predicted = table[~table["correct"]].iloc[0][["label", "predicted"]]
    app = visit(complete, label=label, predicted=predicted, result="wrong")
    assert app.selectbox(key="label").value == label
    assert app.selectbox(key="predicted").value == predicted
    wanted = table[(table["label"] == label) & (table["predicted"] == predicted)]
    assert [card["row"] for card in cards(app)] == list(wanted.index)


@pytest.mark.parametrize("sort", SORTS)
def test_slices_are_sorted_and_walked_in_their_order(
    visit: Any, complete: Study, sort: str
) -> None:
    table = complete.predictions("test")
    keys = {
        "margin": table["margin"],
        "-margin": -table["margin"],
        "confidence": table["confidence"],
        "support": -complete.top()["support_score"][:, 0],
        "oppose": complete.top()["oppose_score"][:, 0],
    }
    wanted = np.argsort(np.asarray(keys[sort]), kind="stable")
    app = visit(complete, sort=sort)
    assert [card["row"] for card in cards(app)] == list(wanted)
    assert app.selectbox(key="sort").value == sort
    explain = visit(complete, "explain", test=str(wanted[1]), sort=sort)
    assert "<b>2</b> of 40" in words(explain)
    explain.button(key="next").click().run()
    assert explain.query_params["test"] == f"test-{wanted[2]}"
    app.selectbox(key="sort").select("Any").run()
    assert "sort" not in app.query_params
    assert [card["row"] for card in cards(app)] == list(range(40))


def test_a_range_of_margins(visit: Any, complete: Study) -> None:
    margin = complete.predictions("test")["margin"]
    app = visit(complete, margin="-1..2", page="1")
    wanted = np.flatnonzero((margin >= -1) & (margin <= 2))
    assert 0 < len(wanted) < 40
    assert [card["row"] for card in cards(app)] == list(wanted)
    assert app.slider(key="margins").value == (-1.0, 2.0)
    options = app.selectbox(key="label").options
    assert sum(int(option.rsplit("(")[-1].split()[0].strip(")")) for option in options) == len(
        wanted
    )
    assert app.slider(key="margins").label == f"Margin ({len(wanted)} / 40)"
    app.slider(key="margins").set_value((0.0, 2.0)).run()
    assert app.query_params["margin"] == "0..2"
    slider = app.slider(key="margins")
    slider.set_value((slider.min, slider.max)).run()
    assert "margin" not in app.query_params
    assert len(cards(app)) == 40


def test_an_empty_slice_says_so_and_leads_out(visit: Any, complete: Study) -> None:
    table = complete.predictions("test")
    app = visit(complete, label=CLASSES[0], predicted=CLASSES[4])
    assert not (
        (table["predicted"] == CLASSES[4]) & (complete.table("test")["label"] == CLASSES[0])
    ).any()
    assert "No pictures are like this" in words(app)
    app.button(key="show_all").click().run()
    assert len(cards(app)) == 40
    assert "label" not in app.query_params


def test_a_mix_up_is_both_class_filters_at_once(visit: Any, complete: Study) -> None:
    table = complete.table("test").join(complete.predictions("test"))
    wrong = table[~table["correct"]]
    often = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False)
    (label, predicted), number = often.index[0], often.iloc[0]
    app = visit(complete, page="1")
    box = app.selectbox(key="pair")
    assert len(box.options) == len(often)
    assert box.options[0].endswith(f" ({number})")
    box.select_index(0).run()
    wanted = table[(table["label"] == app.query_params["label"]) & ~table["correct"]]
    wanted = wanted[wanted["predicted"] == app.query_params["predicted"]]
    assert [card["row"] for card in cards(app)] == list(wanted.index)
    assert len(wanted) == number
    app = visit(complete, label=label, predicted=predicted)
    assert app.selectbox(key="pair").value is not None
    assert visit(complete, label=label, predicted=label).selectbox(key="pair").value is None
    never = visit(complete, label=CLASSES[0], predicted=CLASSES[4])
    assert never.selectbox(key="pair").options[0] == f"{CLASSES[0]} → {CLASSES[4]} (0)"


@pytest.mark.parametrize(("search", "rows"), [("test-3", [3, *range(30, 40)]), ("T-39", [39])])
def test_search_by_id(visit: Any, complete: Study, search: str, rows: list[int]) -> None:
    app = visit(complete)
    app.text_input(key="id").set_value(search).run()
    assert app.query_params["id"] == search
    assert [card["row"] for card in cards(app)] == rows
    assert app.text_input(key="id").label == f"Search by id ({len(rows)} / 40)"
    app.text_input(key="id").set_value("").run()
    assert "id" not in app.query_params


@pytest.mark.parametrize("search", [".*", "[", "' or 1=1 --", "<b>x</b>", "🦊", "x" * 999])
def test_a_search_is_text_and_nothing_else(visit: Any, complete: Study, search: str) -> None:
    app = visit(complete, id=search)
    assert "<b>0</b> / 40" in words(app)
    assert "<b>x</b>" not in words(app)


def test_small_thumbnails_show_more_and_stay_where_one_is(visit: Any, tmp_path: Path) -> None:
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


# --- selecting ---------------------------------------------------------------------------------


def test_a_url_restores_the_selection(visit: Any, complete: Study) -> None:
    app = visit(complete, selected="0-2,5")
    assert component(app, "groups")["selected"] == [0, 1, 2, 5]
    assert "<b>4</b> selected" in words(app)
    assert app.multiselect(key="selected").value == [0, 1, 2, 5]
    app.multiselect(key="selected").unselect(1).run()
    assert app.query_params["selected"] == "0,2,5"
    assert component(app, "groups")["selected"] == [0, 2, 5]
    app.button(key="clear_selection").click().run()
    assert "selected" not in app.query_params
    assert component(app, "groups")["selected"] == []


def test_the_selection_outlives_pages_and_can_be_opened(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=250)
    app = visit(study, page="2", selected="7")
    app.button(key="select_page").click().run()
    assert app.query_params["selected"] == "7,120-239"
    app.button(key="open_selection").click().run()
    assert app.query_params["only"] == "7,120-239"
    assert "selected" not in app.query_params
    assert "<b>121</b> / 250" in words(app)
    assert cards(app)[0]["row"] == 7
    assert f"only={quote_plus('7,120-239')}" in cards(app)[0]["href"]
    explain = visit(study, "explain", only="7,120-239", test="test-7")
    assert "<b>1</b> of 121 · 121 picked" in words(explain)
    explain.button(key="next").click().run()
    assert explain.query_params["test"] == "test-120"
    app.button(key="unpick").click().run()
    assert "<b>250</b> / 250" in words(app)


def test_a_whole_slice_can_be_selected_if_it_is_not_too_large(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=700)
    assert not [button for button in visit(study).button if button.key == "select_slice"]
    app = visit(study, result="wrong")
    wrong = np.flatnonzero(~study.predictions("test")["correct"])
    app.button(key="select_slice").click().run()
    assert component(app, "groups")["selected"] == list(wrong)
    app = visit(study, selected="0-699")
    assert "At most 500" in words(app)
    assert "the most there can be" in words(app)


@given(some.sets(some.integers(0, 999), min_size=1, max_size=MOST_PICKED))
def test_rows_in_a_url_are_read_as_they_were_written(rows: set[int]) -> None:
    problems: list[str] = []
    text = rows_text(sorted(rows))
    assert read_rows("only", {"only": text}, 1000, problems) == tuple(sorted(rows))
    assert not problems


@pytest.mark.parametrize(
    "text", ["40", "-1", "3-1", "a", "1,,2", "<i>x</i>", "9" * 5000, "0-39,40", "²", ""]
)
@pytest.mark.parametrize("name", ["selected", "only"])
def test_rows_that_cannot_be_are_told(visit: Any, complete: Study, name: str, text: str) -> None:
    app = visit(complete, **{name: text})
    assert f"{name} takes rows 0 to 39" in words(app)
    assert "<i>x</i>" not in words(app)
    assert cards(app)


def test_a_slice_or_a_selection_can_be_taken_away(visit: Any, complete: Study) -> None:
    app = visit(complete, result="wrong")
    wrong = np.flatnonzero(~complete.predictions("test")["correct"])
    labels = [part.proto.popover.label for part in app.get("popover")]
    assert f"Export all {len(wrong)}" in labels
    labels = [part.proto.popover.label for part in visit(complete, selected="1-2").get("popover")]
    assert "Export 2 selected" in labels

    table = complete.table("test").join(complete.predictions("test"))
    evil = table.assign(label=["=cmd()"] * len(table))
    found = Examples(evil, pd.Index(evil["id"]), [], {})
    lines = list(csv.DictReader(io.StringIO(rows_as_csv(found, np.array([3, 1])))))
    assert [line["row"] for line in lines] == ["3", "1"]
    assert [line["id"] for line in lines] == ["test-3", "test-1"]
    assert lines[0]["label"] == "'=cmd()"
    assert float(lines[0]["margin"]) == pytest.approx(table["margin"][3])
    here = Location(
        study=None,
        foreign=None,
        algorithm="cnn",
        method=None,
        slice=Slice(result="wrong"),
        page=1,
        size="large",
        selected=(),
        test=None,
        train=None,
        show="influential",
        k=12,
        problems=(),
    )
    taken = json.loads(rows_as_json(found, np.array([3, 1]), here, "f00d"))
    assert taken["data_fingerprint"] == "f00d"
    assert taken["slice"] == {"result": "wrong"}
    assert [one["id"] for one in taken["examples"]] == ["test-3", "test-1"]
    assert taken["examples"][0]["correct"] is bool(table["correct"][3])


# --- saved slices ------------------------------------------------------------------------------


def save(app: AppTest, name: str) -> AppTest:
    app.text_input(key="slice_name").set_value(name)
    (button,) = [one for one in app.button if one.label == "Save"]
    return button.click().run()


def test_a_slice_is_saved_opened_and_deleted(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=40)
    wrong = np.flatnonzero(~study.predictions("test")["correct"])
    app = save(visit(study, result="wrong", sort="margin"), "Hard ones")
    assert "“Hard ones” is saved" in words(app)
    other = visit(study)  # Someone else's browser.
    button = other.button(key="open slice Hard ones")
    assert button.label == f"Hard ones ({len(wrong)} / 40)"
    button.click().run()
    assert (other.query_params["result"], other.query_params["sort"]) == ("wrong", "margin")
    assert {card["row"] for card in cards(other)} == set(wrong)
    assert "already" in words(save(other, " Hard ones "))
    other.button(key="delete slice Hard ones").click().run()
    assert len(saved_slices(study)[0]) == 1
    other.button(key="delete slice Hard ones").click().run()
    assert "is deleted" in words(other)
    assert saved_slices(study) == ([], [])


def test_a_selection_is_saved_as_a_slice(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=40)
    save(visit(study, selected="3,5-6", result="wrong"), "These")
    app = visit(study, label=CLASSES[0], page="1", selected="1")
    app.button(key="open slice These").click().run()
    assert [card["row"] for card in cards(app)] == [3, 5, 6]
    assert not {"label", "selected", "result"} & set(app.query_params)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 81])
def test_no_slice_without_a_proper_name(visit: Any, tmp_path: Path, name: str) -> None:
    study = write_study(tmp_path / "s")
    with pytest.raises(DataloupeError, match="1 to 80 characters"):
        save_slice(study, name, {})
    assert saved_slices(study) == ([], [])


def test_slices_with_any_name_and_of_other_data(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    names = ("../../etc", "<script>alert(1)</script>", "🦊 **bold** :red[x] [a](b)", "é", "👩‍💻")
    for name in names:
        save_slice(study, name, {"label": CLASSES[1], "evil": "1", "sort": "<b>"})
    assert {one.name for one in saved_slices(study)[0]} == set(names)
    app = visit(study)
    assert "<script>" not in words(app)
    labels = [button.label for button in app.button]
    assert r"\*\*bold\*\* \:red\[x\]" in "".join(labels)
    app.button(key="open slice é").click().run()
    assert app.query_params["label"] == CLASSES[1]
    assert "evil" not in app.query_params
    write_study(tmp_path / "t", n_test=9, seed=4)
    for name in ("data", "algorithms"):
        (study.root / name).rename(tmp_path / f"old-{name}")
        (tmp_path / "t" / name).rename(study.root / name)
    app = visit(study)
    assert app.button(key="open slice é").label == "é (of other data)"
    app.button(key="open slice é").click().run()
    assert "made for other data" in words(app)


def test_a_broken_slice_is_told_and_the_others_stay(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    for name in ("one", "two"):
        save_slice(study, name, {})
    study.slice_file("one").write_text("{}")
    app = visit(study)
    assert "no whole saved slice" in words(app)
    assert [button.label for button in app.button if "open slice" in str(button.key)] == [
        "two (24 / 24)"
    ]


def test_a_study_that_cannot_be_written_keeps_no_slice(
    visit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path / "s")
    (study.root / "slices").write_text("in the way")
    app = save(visit(study), "one")
    assert "cannot be written" in words(app)


def test_pages_of_the_gallery(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_test=250)
    assert [card["row"] for card in cards(visit(study))] == list(range(120))
    for page in ("3", "200"):
        assert [card["row"] for card in cards(visit(study, page=page))] == list(range(240, 250))
    app = visit(study, page="2")
    assert app.get("pagination")[0].default == 2
    app.selectbox(key="label").select(CLASSES[0]).run()
    assert "page" not in app.query_params


# --- Explain -----------------------------------------------------------------------------------


def example(study: Study, correct: bool) -> str:
    return f"test-{int(np.flatnonzero(study.predictions('test')['correct'] == correct)[0])}"


@pytest.mark.parametrize("correct", [True, False])
def test_explain_shows_both_sides(visit: Any, complete: Study, correct: bool) -> None:
    test = example(complete, correct)
    app = visit(complete, "explain", test=test)
    row = complete.row("test", test)
    support, support_scores, oppose, _ = complete.influences(row, 12)
    assert [card["row"] for card in cards(app, 0)] == list(support)
    assert [card["row"] for card in cards(app, 1)] == list(oppose)
    assert all(card["score"].startswith("+") for card in cards(app, 0))
    assert all(card["score"].startswith("−") for card in cards(app, 1))
    assert cards(app, 0)[0]["name"] == complete.table("train")["label"][support[0]]
    bars = [card["bar"] for side in (0, 1) for card in cards(app, side)]
    assert max(bars) == pytest.approx(1)
    assert bars[1] == pytest.approx(float(support_scores[1]) * bars[0] / float(support_scores[0]))
    towards, away = group_words(app)
    label, predicted = (
        complete.table("test")["label"][row],
        complete.predictions("test")["predicted"][row],
    )
    assert f"true label, “{label}”" in towards
    assert f"Why “{predicted}”?" in words(app)
    if correct:
        assert "Predicted correctly" in words(app)
        assert "away from that" in away
    else:
        assert "Predicted wrongly" in words(app)
        assert f"to the wrong “{predicted}”" in away


def test_the_badge_stands_beside_the_scores(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-1")
    shown = words(app)
    for told in ("TRAK", "32,768 per checkpoint", "Not measured", "Uncalibrated", "recall@20"):
        assert told in shown


def test_k_changes_both_sides_and_the_url(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-1", k="5")
    assert [len(cards(app, side)) for side in (0, 1)] == [5, 5]
    app.number_input(key="k").set_value(7).run()
    assert [len(cards(app, side)) for side in (0, 1)] == [7, 7]
    assert app.query_params["k"] == "7"
    app.number_input(key="k").set_value(12).run()
    assert "k" not in app.query_params


def test_previous_and_next_stay_in_the_slice(visit: Any, complete: Study) -> None:
    wrong = np.flatnonzero(~complete.predictions("test")["correct"])
    app = visit(complete, "explain", test=f"test-{wrong[0]}", result="wrong")
    assert app.button(key="previous").disabled
    app.button(key="next").click().run()
    assert app.query_params["test"] == f"test-{wrong[1]}"
    assert f"<b>2</b> of {len(wrong)}" in words(app)
    app.button(key="previous").click().run()
    assert app.query_params["test"] == f"test-{wrong[0]}"
    right = np.flatnonzero(complete.predictions("test")["correct"])
    outside = visit(complete, "explain", test=f"test-{right[0]}", result="wrong")
    assert f"<b>not one</b> of {len(wrong)}" in words(outside)


def test_the_link_is_complete(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-3", result="wrong", k="4")
    wanted = {"study": complete.dataset.fingerprint[:8], "algorithm": "cnn", "result": "wrong"}
    wanted |= {"method": "trak", "k": "4", "test": "test-3"}
    assert dict(app.query_params) == wanted


def test_without_an_example_explain_offers_mistakes(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain")
    assert "Which test picture shall be explained?" in words(app)
    margins = complete.predictions("test")["margin"].to_numpy()
    shown = [margins[card["row"]] for card in cards(app)]
    assert shown == sorted(shown)
    assert all(card["wrong"] for card in cards(app))


def test_cards_of_an_explanation_lead_to_the_training_view(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-1", result="wrong")
    card = cards(app, 0)[0]
    assert card["href"].startswith("training?")
    asked = parse_qs(urlparse(card["href"]).query)
    assert asked["train"] == [f"train-{card['row']}"]
    assert asked["test"] == ["test-1"]
    assert asked["result"] == ["wrong"]


def test_the_likeliest_classes_stand_with_their_probabilities(visit: Any, complete: Study) -> None:
    shown = words(visit(complete, "explain", test="test-1"))
    found = complete.probabilities("test", 1)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert f"<span>{found.max():.1%}</span>" in shown
    assert shown.count("<li data-label=") == 4


def test_the_label_is_shown_however_unlikely() -> None:
    html = probabilities(list("abcdef"), np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01]), "f")
    assert html.count("<li") == 4
    assert '<li data-label="true"><span><span class="dl-clamp" title="f">' in html
    assert "1.0%" in html


def test_each_side_says_what_it_is_made_of(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-1")
    rows, scores, _, oppose_scores = complete.influences(1, 12)
    labels = complete.table("train")["label"].iloc[rows]
    support, oppose = component(app, "groups")["groups"]
    assert sum(number for _, number in support["makeup"]) == 12
    label, number = support["makeup"][0]
    assert number == (labels == label).sum() == labels.value_counts().iloc[0]
    totals = complete.totals()
    assert sum(support["shares"]) == pytest.approx(scores.sum() / totals["test_support"][1])
    assert sum(oppose["shares"]) == pytest.approx(oppose_scores.sum() / totals["test_oppose"][1])


def test_an_explanation_can_be_taken_away(visit: Any, complete: Study) -> None:
    explanation = complete.explain("test-1", k=5)
    taken = json.loads(as_json(explanation, "f00d"))
    assert taken["data_fingerprint"] == "f00d"
    assert [one["row"] for one in taken["supporting"]] == list(complete.influences(1, 5)[0])
    lines = list(csv.DictReader(io.StringIO(as_csv(explanation))))
    assert [float(line["score"]) for line in lines] == [
        one.score for one in explanation.supporting + explanation.opposing
    ]
    app = visit(complete, "explain", test="test-1", k="5")
    assert [button.proto.label for button in app.get("download_button")] == ["JSON", "CSV"]
    scope: dict[str, Any] = {}
    exec(app.code[0].value, scope)
    assert scope["explanation"] == explanation


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_the_csv_is_a_formula(complete: Study, start: str) -> None:
    evil = f"{start}cmd|'/c calc'!A1"
    influence = Influence(1, evil, evil, -0.5)
    explanation = replace(complete.explain(0, k=1), id=evil, opposing=[influence])
    line = list(csv.DictReader(io.StringIO(as_csv(explanation))))[-1]
    assert line["id"] == line["label"] == line["test_id"] == f"'{evil}"
    assert line["score"] == "-0.5"  # A number is one.


# --- similar beside influential -----------------------------------------------------------------


def test_similar_training_pictures_in_their_order(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-1", show="similar", k="6")
    rows, alike = complete.neighbours("test", 1, 6)
    shown = cards(app)
    assert [card["row"] for card in shown] == list(rows)
    assert [card["score"] for card in shown] == [f"{one:.3f}" for one in alike]
    labels = complete.table("train")["label"].iloc[rows]
    label = complete.table("test")["label"][1]
    (about,) = group_words(app)
    assert f"{(labels == label).sum()} of 6 are labelled “{label}”" in about
    assert "mean cosine of its embeddings over 5 checkpoints" in about
    assert not app.get("popover")[0].proto.popover.label.startswith("TRAK")


@pytest.mark.parametrize("show", ["influential", "similar", "both"])
def test_the_switch_is_in_the_url(visit: Any, complete: Study, show: str) -> None:
    app = visit(complete, "explain", test="test-1", show=show)
    assert app.get("button_group")[0].value == show
    assert len(group_words(app)) == {"influential": 2, "similar": 1, "both": 3}[show]
    assert (f"show={show}" in cards(app)[0]["href"]) is (show != "influential")


def test_both_marks_what_is_in_both_and_what_is_influential_alone(
    visit: Any, complete: Study
) -> None:
    app = visit(complete, "explain", test="test-1", show="both")
    nearest, top = list(complete.neighbours("test", 1, 20)[0]), complete.top()
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


def test_an_unknown_switch_is_said_and_left_out(visit: Any, complete: Study) -> None:
    app = visit(complete, "explain", test="test-1", show="<b>")
    assert len(group_words(app)) == 2
    assert "influential, similar, both ones, not “&lt;b&gt;”" in words(app)


def test_similar_is_shown_before_scores_are(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", stage="predictions")
    app = visit(study, "explain", test="test-1", show="similar")
    assert [card["row"] for card in cards(app)] == list(study.neighbours("test", 1, 12)[0])
    assert all("tag" not in card for card in cards(app))
    assert "as soon as they are scored" in words(visit(study, "explain", test="1", show="both"))


def test_a_study_built_before_likeness_waits_for_it(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    study.similarity_file("cnn").unlink()
    for show in ("similar", "both"):
        app = visit(study, "explain", test="test-1", show=show)
        assert "appear here as soon as they are found" in words(app)
        assert app.get("button_group")[0].value == show
    assert len(group_words(visit(study, "explain", test="test-1"))) == 2
    shown = words(visit(study, "training", train="3"))
    assert f"appear here after `dataloupe build {study.root}`" in shown


def test_a_model_without_embeddings_says_why(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    path = study.similarity_file("cnn")
    reason = "the architecture 'python:mine:net' has no method `embed`"
    store.write_json(path, {"checkpoints": 0, "reason": reason}, "synthetic")
    app = visit(study, "explain", test="test-1", show="similar")
    assert "does not say which pictures are similar" in words(app)
    assert "python:mine:net" in words(app)
    assert len(group_words(visit(study, "explain", test="test-1"))) == 2
    assert "is not known: the architecture" in words(visit(study, "training", train="3"))


def test_training_shows_what_is_similar_and_what_is_labelled_otherwise(
    visit: Any, complete: Study
) -> None:
    app = visit(complete, "training", train="train-3", k="15")
    rows, _ = complete.neighbours("train", 3, 15)
    shown = cards(app, gallery=1)
    labels = complete.table("train")["label"]
    assert [card["row"] for card in shown] == list(rows)
    for card in shown:
        other = labels[card["row"]] != labels[3]
        assert (card.get("tag") == "other label") is other
        assert ("possible label conflict" in card["hint"]) is other
    others = int((labels.iloc[rows] != labels[3]).sum())
    assert 0 < others < 15
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    about = [gallery for gallery in galleries if "groups" in gallery][1]["groups"][0]["words"]
    assert f"{others} of 15 have another label" in about


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (112, "112th")],
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal(number) == words


# --- Training view -----------------------------------------------------------------------------


def test_training_shows_whom_it_helps_and_hurts(visit: Any, complete: Study) -> None:
    app = visit(complete, "training", train="train-3")
    top = complete.top_of_training(3)
    for side, sign in enumerate(("support", "oppose")):
        shown = cards(app, side)
        assert [card["row"] for card in shown] == list(top[f"{sign}_index"][:12])
        assert all(card["score"].startswith("+−"[side]) for card in shown)
        assert f"test=test-{shown[0]['row']}" in shown[0]["href"]
        assert shown[0]["href"].startswith("explain?")
        assert "predicted" in shown[0]["hint"]
    prediction = complete.predictions("train").iloc[3]
    shown_words = words(app)
    assert "Training picture train-3" in shown_words
    assert prediction["predicted"] in shown_words
    assert f"{prediction['confidence']:.1%}" in shown_words
    assert ("still disagree" in shown_words) is not bool(prediction["correct"])
    assert "quality not measured" in app.get("popover")[0].proto.popover.label


def test_training_says_how_unusual_its_influence_is(visit: Any, complete: Study) -> None:
    totals, labels = complete.totals(), complete.table("train")["label"].to_numpy()
    weight = totals["train_support"] - totals["train_oppose"]
    members = weight[labels == labels[3]]
    shown = words(visit(complete, "training", train="3"))
    assert f"<b>{(members < weight[3]).sum()} of the {len(members) - 1}</b>" in shown
    assert "data-here" in shown


def test_training_leads_back_to_the_explanation_it_came_from(visit: Any, complete: Study) -> None:
    app = visit(complete, "training", train="train-3", test="test-5", result="wrong")
    assert app.button(key="back").label == "Back to test-5"
    app.button(key="back").click().run()
    assert app.query_params["test"] == "test-5"
    assert app.query_params["result"] == "wrong"
    assert "for test-5" in words(app)
    alone = visit(complete, "training", train="train-3", test="nobody")
    assert alone.button(key="back").label == "Explore"


def test_training_keeps_k_and_its_link_is_complete(visit: Any, complete: Study) -> None:
    app = visit(complete, "training", train="train-3", test="test-5", k="5")
    assert [len(cards(app, side)) for side in (0, 1)] == [5, 5]
    app.number_input(key="k").set_value(7).run()
    assert len(cards(app, 1)) == 7
    assert app.query_params["k"] == "7"
    assert (app.query_params["train"], app.query_params["test"]) == ("train-3", "test-5")
    more = visit(complete, "training", train="train-3", k="60")  # No more than are stored.
    assert len(cards(more, 0)) == 20


def test_without_an_example_training_offers_the_heaviest(visit: Any, complete: Study) -> None:
    app = visit(complete, "training")
    assert "Which training picture?" in words(app)
    totals = complete.totals()
    weight = totals["train_support"] - totals["train_oppose"]
    assert [card["row"] for card in cards(app)] == list(np.argsort(-weight, kind="stable")[:24])
    app.text_input(key="open_training").set_value("train-9").run()
    assert app.query_params["train"] == "train-9"
    assert "Training picture train-9" in words(app)
    for train in ("nobody", "60", "<b>x</b>"):
        app = visit(complete, "training", train=train)
        assert "There is no training picture" in words(app)
        assert "<b>x</b>" not in words(app)


@pytest.mark.parametrize(
    ("weight", "members", "told"),
    [
        (1.0, [1.0], "only training picture labelled “a”"),
        (1.0, [1.0, 1.0], "0 of the 1</b>"),
        (3.0, [1.0, 2.0, 3.0, 4.0], "2 of the 3</b>"),
    ],
)
def test_standing_in_a_class(weight: float, members: list[float], told: str) -> None:
    assert told in rank_words(weight, np.array(members), "a", "picture")


# --- Overview ----------------------------------------------------------------------------------


def component_of(app: AppTest, name: str) -> list[dict[str, Any]]:
    """The data of the page's components that have this entry."""
    found = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    return [data for data in found if name in data]


def component(app: AppTest, name: str) -> dict[str, Any]:
    """The data of the page's component that has this entry."""
    (data,) = component_of(app, name)
    return data


def test_overview_counts_and_links_every_confusion(visit: Any, complete: Study) -> None:
    app = visit(complete, "overview", result="wrong")
    table = complete.table("test").join(complete.predictions("test"))
    rows = component(app, "rows")["rows"]
    for label, cells in zip(CLASSES, rows, strict=True):
        for predicted, cell in zip(CLASSES, cells, strict=True):
            both = (table["label"] == label) & (table["predicted"] == predicted)
            assert cell["count"] == both.sum()
            if not cell["count"]:
                continue
            asked = parse_qs(urlparse(cell["href"]).query)
            assert (asked["label"], asked["predicted"]) == ([label], [predicted])
            assert "result" not in asked
    assert f"{table['correct'].mean():.1%}" in words(app)
    assert f"{(~table['correct']).sum()}<small>test pictures" in words(app)


def test_overview_shows_what_weighs_most_and_the_badge_in_full(visit: Any, complete: Study) -> None:
    app = visit(complete, "overview")
    totals = complete.totals()
    weight = totals["train_support"] - totals["train_oppose"]
    shown = cards(app)
    assert [card["row"] for card in shown] == list(np.argsort(-weight, kind="stable")[:22])
    assert shown[0]["href"].startswith("training?")
    assert shown[0]["bar"] == 1
    for told in ("32,768 per checkpoint", "Not measured", "recall@20", "gave no warning"):
        assert told in words(app)


def test_overview_leads_to_the_mistakes(visit: Any, complete: Study) -> None:
    app = visit(complete, "overview")
    (button,) = [b for b in app.button if "mistakes" in b.label]
    button.click().run()
    wrong = np.flatnonzero(~complete.predictions("test")["correct"])
    assert [card["row"] for card in cards(app)] == list(wrong)
    app = visit(complete, "overview")
    (button,) = [b for b in app.button if "most confident" in b.label]
    button.click().run()
    worst = complete.predictions("test")["margin"].iloc[wrong].idxmin()
    assert app.query_params["test"] == f"test-{worst}"


@pytest.mark.parametrize(
    ("stage", "told", "absent"),
    [
        ("spec", "nothing is computed yet", "Test accuracy"),
        ("data", "the checkpoints have spoken", "Test accuracy"),
        ("predictions", "as soon as it is scored", "Most influential"),
    ],
)
def test_overview_of_a_study_that_is_still_built(
    visit: Any, tmp_path: Path, stage: Any, told: str, absent: str
) -> None:
    app = visit(write_study(tmp_path / "s", stage=stage), "overview")
    assert told in words(app)
    assert absent not in words(app)


@given(some.lists(some.tuples(some.integers(0, 4), some.integers(0, 4)), min_size=1))
def test_confusions_are_counted(pairs: list[tuple[int, int]]) -> None:
    label, predicted = np.array(pairs).T
    codes = {"label": label, "predicted": predicted}
    found = Examples(pd.DataFrame(index=range(len(pairs))), pd.Index([]), list("abcde"), codes)
    counts = confusion_counts(found)
    assert all(counts[a, b] == pairs.count((a, b)) for a in range(5) for b in range(5))
    listed = mix_ups(found, {})
    assert {one[:2] for one in listed} == {(a, b) for a, b in pairs if a != b}
    assert [number for *_, number in listed] == sorted(
        (counts[one[:2]] for one in listed), reverse=True
    )
    mistaken = most_mistaken(found)
    assert {one[0] for one in mistaken} == {a for a, b in pairs if a != b}
    for place, wrong, of in mistaken:
        assert of == sum(a == place for a, _ in pairs)
        assert wrong == sum(a == place != b for a, b in pairs)
    assert [wrong / of for _, wrong, of in mistaken] == sorted(
        (wrong / of for _, wrong, of in mistaken), reverse=True
    )


# --- Provenance --------------------------------------------------------------------------------


def test_provenance_tells_what_was_made_from_what(
    visit: Any, complete: Study, tmp_path: Path
) -> None:
    complete = copy_of(complete, tmp_path / "copy")
    store.write_tensors(
        complete.checkpoint_file("cnn", 0),
        {"w": np.zeros(2, np.float32)},
        "synthetic",
        {"seed": 1234, "device": "cpu", "torch": "9.9"},
    )
    app = visit(complete, "provenance")
    shown = words(app)
    assert complete.dataset.fingerprint in shown
    assert "seed 1234" in shown
    assert "torch 9.9" in shown
    assert app.code[1].value == complete.spec_file.read_text().strip()
    assert f"dataloupe build {complete.root}" in app.code[0].value
    files = [path for path in (complete.root / "data").rglob("*") if path.is_file()]
    assert f"<td>complete</td><td>{len(files)}</td>" in shown
    assert "all whole" not in shown  # Nothing is read before it is asked for.


def test_provenance_says_which_output_an_imported_bank_has(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    assert "Run bank" not in words(visit(study, "provenance"))
    about = BankImport(
        fingerprint="f",
        folder="<b>cifar</b>",
        files={"train_masks.npy": "0123456789abcdef" * 4},
        output="max-margin",
        runs=1200,
        masks=1000,
        alpha=0.5,
        train=False,
        shards=1,
        notes=["Its outputs are max-margins."],
        dataset=study.dataset.fingerprint,
    )
    store.write_json(study.bank_import_file("cnn"), asdict(about), "f")
    shown = words(visit(study, "provenance"))
    assert "Run bank, imported" in shown
    assert "1,200 on 1,000 masks" in shown
    assert "the largest other (not our margin)" in shown
    assert "&lt;b&gt;cifar&lt;/b&gt;: train_masks.npy" in shown


def test_checksums_are_verified_on_demand(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study, "provenance")
    app.button(key="verify").click().run()
    assert "files, all whole" in words(app)
    path = study.totals_file("cnn", "trak")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    app.run()
    assert "all whole" not in words(app)
    assert "Files have changed" in words(app)
    app.button(key="verify").click().run()
    assert "1 of" in words(app)
    assert str(path) in words(app)


@pytest.mark.parametrize("stage", ["spec", "data"])
def test_provenance_of_a_study_that_is_still_built(visit: Any, tmp_path: Path, stage: Any) -> None:
    shown = words(visit(write_study(tmp_path / "s", stage=stage), "provenance"))
    assert ("Not read yet" in shown) is (stage == "spec")
    assert "None is trained yet" in shown
    assert "<td>0 of 5</td><td>0</td><td>0 B</td><td>–</td>" in shown


# --- URLs that do not fit ----------------------------------------------------------------------


def test_an_example_that_does_not_exist(visit: Any, complete: Study) -> None:
    for test in ("nobody", "40", "-1", "<b>x</b>", "9" * 400, "²"):
        app = visit(complete, "explain", test=test)
        assert "There is no test picture" in words(app)
        assert "<b>x</b>" not in words(app)
        assert app.button(key="back").label == "Go to Explore"


def test_an_example_by_its_row_number(visit: Any, complete: Study) -> None:
    assert "test-7" in words(visit(complete, "explain", test="7"))


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"study": "0123abcd"}, "made for other data"),
        ({"label": "<i>Zebra</i>"}, "no class “&lt;i&gt;Zebra"),
        ({"predicted": "Zebra"}, "no class “Zebra”"),
        ({"result": "maybe"}, "not “maybe”"),
        ({"algorithm": "vit"}, "no learning algorithm “vit”"),
        ({"sort": "fun"}, "sorted by “fun”"),
        ({"margin": "2..1"}, "not “2..1”"),
        ({"margin": "nan..nan"}, "not “nan..nan”"),
        ({"page": "0"}, "page must be 1 to 40"),
        ({"size": "huge"}, "large or small, not “huge”"),
        ({"k": "many"}, "k must be 1 to 60"),
        ({"k": "9" * 5000}, "k must be 1 to 60"),
    ],
)
@pytest.mark.parametrize("view", ["overview", "explore", "explain", "training"])
def test_a_foreign_link_is_told_and_still_shows(
    visit: Any, complete: Study, view: str, parameters: dict[str, str], told: str
) -> None:
    app = visit(complete, view, test="test-2", train="train-2", **parameters)
    assert told in words(app)
    assert cards(app)


def test_a_link_to_other_data_can_be_taken_over(visit: Any, complete: Study) -> None:
    app = visit(complete, study="0123abcd")
    assert app.query_params["study"] == "0123abcd"
    app.button[0].click().run()
    assert "other data" not in words(app)
    assert app.query_params["study"] == complete.dataset.fingerprint[:8]


# --- a study that grows, changes or goes away --------------------------------------------------


def test_pages_follow_a_study_as_it_is_built(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", stage="spec")
    explore, explain = visit(study), visit(study, "explain", test="test-0")
    for app in (explore, explain):
        assert "Read and check the data" in words(app)
        assert f"dataloupe build {study.root}" in words(app)

    write_study(tmp_path / "t", stage="data")
    (tmp_path / "t" / "data").rename(study.root / "data")
    explore.run()
    assert len(cards(explore)) == 24
    assert "predicted" not in cards(explore)[0]["hint"]
    assert "Predictions appear" in words(explore)
    assert [box.key for box in explore.selectbox] == ["label"]
    assert not explore.slider
    explain.run()
    assert "True label" in words(explain)
    assert "Predicted" not in words(explain)
    assert "0 of 5" in words(explain)

    study = Study.open(study.root)
    write_predictions(study, "cnn", 0.2, np.random.default_rng(0))
    explore.run()
    assert "predicted" in cards(explore)[0]["hint"]
    assert "Predictions appear" not in words(explore)
    explain.run()
    assert "Confidence" in words(explain)
    assert "as soon as they are scored" in words(explain)

    write_scores(study, "cnn", 20, np.random.default_rng(0))
    explain.run()
    assert len(cards(explain, 0)) == 12
    assert not explore.exception
    assert not explain.exception


def test_a_study_that_is_gone_gets_a_message(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study)
    study.root.rename(tmp_path / "elsewhere")
    app.run()
    assert not app.exception
    assert "cannot be shown" in words(app)
    assert "is no folder" in words(app)


def test_a_link_to_an_example_that_a_rebuild_took_away(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    explain = visit(study, "explain", test="test-20", only="19-20", selected="18-21")
    training = visit(study, "training", train="train-30", test="test-20")
    write_study(tmp_path / "t", n_train=10, n_test=9, seed=4)
    for name in ("data", "algorithms"):
        (study.root / name).rename(tmp_path / f"old-{name}")
        (tmp_path / "t" / name).rename(study.root / name)
    for app, told in ((explain, "no test picture"), (training, "no training picture")):
        app.run()
        assert not app.exception
        assert told in words(app)
        assert "made for other data" in words(app)
    assert "only takes rows 0 to 8" in words(explain)


def test_a_broken_file_gets_a_message(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    path = study.top_test_file("cnn", "trak")
    path.write_bytes(path.read_bytes()[:-8])
    app = visit(study, "explain", test="test-0")
    assert "cannot be shown" in words(app)
    assert "dataloupe doctor" in words(app)


def test_a_rebuilt_study_shows_its_new_data(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study)
    write_study(tmp_path / "t", n_test=9, seed=4)
    for name in ("data", "algorithms"):
        (study.root / name).rename(tmp_path / f"old-{name}")
        (tmp_path / "t" / name).rename(study.root / name)
    app.run()
    assert len(cards(app)) == 9
    assert "made for other data" in words(app)


# --- unusual studies ---------------------------------------------------------------------------


def test_hostile_names_are_shown_as_text(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", classes=HOSTILE, name="<script>study</script>", wrong=0.5)
    for app in (visit(study), visit(study, label=HOSTILE[0])):
        assert "<script>" not in words(app)
    overview = visit(study, "overview")
    assert "<script>" not in words(overview)
    assert "<img" not in words(overview)
    for row in range(6):
        view, name = ("explain", "test") if row < 3 else ("training", "train")
        app = visit(study, view, **{name: f"{name}-{row}"})
        shown = words(app)
        assert "<script>" not in shown
        assert "<img" not in shown
        label = study.table(name)["label"][row]
        assert all(len(name) < 200 for name in group_words(app)), label
        assert {card["name"] for side in (0, 1) for card in cards(app, side)} <= set(HOSTILE)


def test_hostile_file_names_are_shown_as_text_and_found_again(visit: Any, tmp_path: Path) -> None:
    files = tuple(f"/{name}" for name in HOSTILE)
    study = write_study(tmp_path / "s", n_test=12, files=files, wrong=0.5)
    ids = study.table("test")["id"]
    for row in range(len(HOSTILE)):
        explain = visit(study, "explain", test=ids[row])
        training = visit(study, "training", train=study.table("train")["id"][row], test=ids[row])
        for app in (explain, training, visit(study, id=HOSTILE[row][:100])):
            assert "<script>" not in words(app)
            assert "<img" not in words(app)
            assert cards(app)
        assert f"<b>{row + 1}</b> of 12" in words(explain)
        asked = parse_qs(urlparse(cards(training)[0]["href"]).query)
        assert asked["test"][0] in set(ids)
        if "bold" in HOSTILE[row]:
            assert r"\*\*bold\*\*" in training.button(key="back").label
        training.button(key="back").click().run()
        assert training.query_params["test"] == ids[row]


def test_texts_are_shown_in_place_of_pictures(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", display="text", classes=("good", "bad"))
    shown = cards(visit(study))
    assert shown[0]["text"] == study.table("test")["text"][0]
    app = visit(study, "explain", test="test-0")
    assert f"<blockquote>{study.table('test')['text'][0]}</blockquote>" in words(app)
    first = cards(app, 0)[0]
    assert first["text"] == study.table("train")["text"][first["row"]]


def test_two_algorithms_can_be_switched(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", algorithms=("cnn", "mlp"))
    app = visit(study, "explain", test="test-0")
    app.selectbox(key="algorithm").select("mlp").run()
    assert app.query_params["algorithm"] == "mlp"
    assert [card["row"] for card in cards(app, 0)] == list(study.influences(0, 12, "mlp")[0])


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    ("n_test", "classes"), [(1, ("a", "b")), (30, [f"class {n}" for n in range(1000)])]
)
def test_small_and_wide_studies(
    visit: Any, tmp_path: Path, n_test: int, classes: list[str], wrong: float
) -> None:
    study = write_study(tmp_path / "s", n_test=n_test, classes=classes, wrong=wrong)
    assert len(cards(visit(study))) == n_test
    app = visit(study, "explain", test=f"test-{n_test - 1}")
    assert app.button(key="next").disabled
    assert len(cards(visit(study, "explain"))) == (min(n_test, 24) if wrong else 0)
    assert len(cards(visit(study, "training", train="0"), 0)) <= n_test
    assert not visit(study, "provenance").exception
    overview = visit(study, "overview")
    assert bool(component_of(overview, "lists")) is (len(classes) > 24)


def test_mix_ups_among_a_thousand_classes(visit: Any, tmp_path: Path) -> None:
    classes = [f"class {n}" for n in range(1000)]
    study = write_study(tmp_path / "s", n_test=400, classes=classes, wrong=0.5)
    table = study.table("test").join(study.predictions("test"))
    wrong = table[~table["correct"]]
    app = visit(study, "overview")
    pairs, mistaken = component(app, "lists")["lists"]
    number = len(wrong.groupby(["label", "predicted"]))
    assert pairs["title"] == f"Most frequent mix-ups (24 / {number})"
    for cell in pairs["cells"]:
        asked = parse_qs(urlparse(cell["href"]).query)
        both = (wrong["label"] == asked["label"][0]) & (wrong["predicted"] == asked["predicted"][0])
        assert cell["count"] == both.sum() > 0
    for cell in mistaken["cells"]:
        asked = parse_qs(urlparse(cell["href"]).query)
        assert asked["result"] == ["wrong"]
        assert cell["count"] == (wrong["label"] == asked["label"][0]).sum() > 0
    label = wrong["label"].iloc[0]
    app.selectbox(key="confused").select_index(classes.index(label)).run()
    (pairs,) = component(app, "lists")["lists"]
    concerned = wrong[(wrong["label"] == label) | (wrong["predicted"] == label)]
    assert sum(cell["count"] for cell in pairs["cells"]) == len(concerned)
    explore = visit(study, result="wrong")
    assert len(explore.selectbox(key="label").options) == 1000
    assert len(explore.selectbox(key="pair").options) == min(number, 100)


# --- pieces ------------------------------------------------------------------------------------


def test_pages_need_no_torch(complete: Study) -> None:
    script = f"""
import os, sys
os.environ[{STUDY_VARIABLE!r}] = {str(complete.root)!r}
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(APP)!r}, default_timeout=60)
app.query_params["test"] = "test-0"
app.run()
app.query_params["train"] = "train-0"
for view, components in (("explore", 1), ("explain", 2), ("training", 3)):
    app.switch_page(f"views/{{view}}.py").run()
    assert not app.exception and len(app.get("bidi_component")) == components
import dashboard.__main__, dashboard.routes
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@given(some.floats(-60, 60))
def test_odds_are_true(margin: float) -> None:
    said = odds(margin)
    if "even" in said:
        assert abs(margin) < 0.1
    else:
        assert ("for the" in said) == (margin > 0)
        if "over" in said:
            assert math.exp(abs(margin)) >= 1000
        else:
            number = float(said.split("about ")[1].split(" to")[0])
            assert number == pytest.approx(math.exp(abs(margin)), rel=0.06)


@given(some.floats(1e-12, 1e9), some.floats(-1, 1))
def test_scores_keep_sign_and_three_digits(largest: float, part: float) -> None:
    score = part * largest
    said = signed(score, largest)
    assert said[0] in "+−"
    assert float(said.replace("−", "-")) == pytest.approx(score, abs=0.006 * largest)


@given(some.sets(some.integers(0, 50)), some.integers(0, 50))
def test_position_in_a_slice(rows: set[int], row: int) -> None:
    place, before, after = position_in_slice(np.array(sorted(rows), dtype=int), row)
    assert before == max((other for other in rows if other < row), default=None)
    assert after == min((other for other in rows if other > row), default=None)
    assert place == (sorted(rows).index(row) + 1 if row in rows else None)


@given(some.integers(1, 96), some.integers(40, 300))
def test_thumbnails_are_whole_multiples(cell: int, wanted: int) -> None:
    side = thumbnail_side(cell, wanted)
    assert side % cell == 0
    assert side <= max(cell, wanted)


def test_the_server_is_closed_by_default() -> None:
    config = server_config("127.0.0.1", 8501)
    assert config["server.enableXsrfProtection"]
    assert config["browser.gatherUsageStats"] is False
    assert "*" not in config["server.allowedHosts"]  # type: ignore[operator]
    assert Path(str(config["theme.base"])).is_file()
