"""The training set: its grid, table and review, in every state."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.location import read_location
from dashboard.parts.curation.decision_export import decisions_file
from dashboard.permissions import ROLE_VARIABLE
from dashboard.read.curation import FEWEST_TO_REVIEW, curation, queue_rows
from engine.api import Study
from engine.applications.curation.net_influence import net_influence
from engine.study.decisions import decide, read_decisions
from engine.study.removal_sets import kept_sets
from tests.builders.page_contents import cards, component_of, words
from tests.builders.synthetic_study import CLASSES, write_study

PAGE = "training_set"


@pytest.fixture
def own(tmp_path: Path) -> Study:
    return write_study(tmp_path / "s", n_train=60, n_test=40, files=(".png", ""))


def grid(app: Any) -> dict[str, Any]:
    return next(one for one in component_of(app, "groups") if one["selectable"])


def test_the_grid_shows_all_training_pictures(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, PAGE)
    assert [card["row"] for card in cards(app)] == list(range(60))
    assert "<b>60</b> / 60" in words(app)
    assert "/train/" in grid(app)["sheets"]
    assert cards(app)[0]["href"].startswith("training?")


def test_sort_orders(visit: Any, complete_study: Study) -> None:
    found = complete_study.label_suspicion()
    net, _ = net_influence(complete_study, "cnn")
    assert net is not None
    disagreement = found.disagreement
    assert disagreement is not None
    wanted = {
        "suspicion": found.order,
        "harm": np.argsort(net, kind="stable"),
        "help": np.argsort(-net, kind="stable"),
        "disagreement": np.argsort(-disagreement, kind="stable"),
    }
    for sort, order in wanted.items():
        app = visit(complete_study, PAGE, sort=sort)
        assert [card["row"] for card in cards(app)] == order.tolist(), sort
    assert "self" not in app.selectbox(key="sort").options  # there are no subset runs
    # Test examples have none of these orders: the address keeps it, the page is in order.
    app = visit(complete_study, "explore", sort="harm")
    assert [card["row"] for card in cards(app)] == list(range(40))
    assert "invalid" not in words(app)


def test_filters_and_selection_are_those_of_the_training_set(
    visit: Any, complete_study: Study
) -> None:
    table = complete_study.table("train")
    app = visit(complete_study, PAGE, label=CLASSES[2], selected="1", selected_train="2-3")
    mine = np.flatnonzero(table["label"] == CLASSES[2])
    assert [card["row"] for card in cards(app)] == mine.tolist()
    assert grid(app)["selected"] == [2, 3]
    assert "<b>2</b> selected" in words(app)
    app.button(key="select_page").click().run()
    assert app.query_params["selected"] == "1"  # of the test set
    assert set(grid(app)["selected"]) == {2, 3, *mine.tolist()}


def test_the_selection_bar_of_training_examples(visit: Any, own: Study) -> None:
    app = visit(own, PAGE, selected_train="2-3")
    app.button(key="remove_selected").click().run()
    assert {row: one.verdict for row, one in read_decisions(own).items()} == {
        2: "remove",
        3: "remove",
    }
    labels = own.table("train")["label"].to_numpy()
    app.selectbox(key="relabel_selected").select(labels[2]).run()
    made = read_decisions(own)
    assert made[2].verdict == "remove"  # it has this label already
    assert (made[3].verdict == "relabel") is (labels[3] != labels[2])
    app.button(key="what_if_selected").click().run()
    assert kept_sets(own, 5)[0].rows.tolist() == [2, 3]
    assert kept_sets(own, 5)[0].words == "2 selected training examples"


def test_the_selection_bar_of_test_examples(visit: Any, own: Study) -> None:
    from engine.study.tags import read_tags

    app = visit(own, "explore", selected="4,6")
    app.text_input(key="tag_for_selected").set_value("odd").run()
    assert [read_tags(own, "cnn")[row].tags for row in (4, 6)] == [["odd"], ["odd"]]
    assert not [one for one in app.button if one.key == "unlearn_selected"]
    beside = visit(own, "explore", selected="4,6")
    beside.button(key="compare_selected").click().run()
    assert (beside.query_params["test"], beside.query_params["beside"]) == tuple(
        own.table("test")["id"].iloc[[4, 6]]
    )
    app.button(key="what_if_selected").click().run()
    (kept,) = kept_sets(own, 5)
    assert kept.words == "12 strongest supporters of 2 test examples"


def test_the_table_has_the_metadata(visit: Any, own: Study) -> None:
    decide(own, 7, "remove")
    app = visit(own, PAGE, view="table", sort="suspicion")
    shown = app.dataframe[0].value
    order = own.label_suspicion().order
    assert shown["id"].tolist() == own.table("train")["id"].iloc[order].tolist()
    assert shown["decision"].tolist().count("removed") == 1
    assert {"label", "looks like", "suspicion", "predicted", "confidence"} <= set(shown)
    app = visit(own, PAGE, decided="remove")
    assert [card["row"] for card in cards(app)] == [7]
    assert cards(app)[0]["tag"] == "removed"


def test_review_goes_through_the_queue(visit: Any, own: Study) -> None:
    found = own.label_suspicion()
    queue = queue_rows(found, found.order).tolist()
    app = visit(own, PAGE, view="review")
    assert f"0 of {FEWEST_TO_REVIEW} reviewed" in words(app)
    assert "no more than chance" in words(app) or "more than chance" in words(app)
    assert "Weak evidence" in words(app)  # no subset runs
    app.button(key="decide_keep").click().run()
    other = found.suggested([queue[1]])[0]
    app.button(key="decide_relabel").click().run()
    app.button(key="decide_remove").click().run()
    made = read_decisions(own)
    assert [made[row].verdict for row in queue[:3]] == ["keep", "relabel", "remove"]
    assert made[queue[1]].label == other
    assert f"3 of {FEWEST_TO_REVIEW} reviewed" in words(app)
    assert app.query_params["train"] == own.table("train")["id"][queue[3]]
    app.button(key="decide_undo").click().run()  # the last one, which is shown again
    assert queue[2] not in read_decisions(own)
    assert app.query_params["train"] == own.table("train")["id"][queue[2]]
    app.button(key="review_previous").click().run()
    assert "relabel" in words(app) or "→" in words(app)
    third = [n for n in own.dataset.classes if n != own.table("train")["label"][queue[1]]]
    third = [name for name in third if name != other]
    app.selectbox(key="relabel_as").select(third[0]).run()
    assert read_decisions(own)[queue[1]].label == third[0]
    # A link to an example restores it.
    again = visit(own, PAGE, view="review", train=str(own.table("train")["id"][queue[5]]))
    assert f"6 of {FEWEST_TO_REVIEW}" in words(again)


def test_a_full_review_and_an_empty_slice(visit: Any, own: Study) -> None:
    found = own.label_suspicion()
    for row in queue_rows(found, found.order).tolist():
        decide(own, row, "keep")
    app = visit(own, PAGE, view="review")
    assert f"{FEWEST_TO_REVIEW} of {FEWEST_TO_REVIEW} reviewed" in words(app)
    app.button(key="decide_remove").click().run()  # the first again
    assert not app.exception
    assert "Nothing to review" in words(visit(own, PAGE, view="review", id="nobody"))


def test_decisions_are_exported_with_file_names(own: Study, visit: Any) -> None:
    decide(own, 3, "remove")
    decide(own, 4, "keep")
    visit(own, PAGE)
    found = curation(own, "cnn", "trak")
    location = read_location(own)
    content = decisions_file(own, location, found, "csv").decode()
    rows = list(csv.DictReader(io.StringIO(content)))
    assert {(one["row"], one["decision"]) for one in rows} == {("3", "remove"), ("4", "keep")}
    assert [one["id"] for one in rows] == [
        str(own.table("train")["id"][int(one["row"])]) for one in rows
    ]


def test_a_viewer_decides_nothing(visit: Any, own: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROLE_VARIABLE, "viewer")
    app = visit(own, PAGE, view="review")
    for key in ("decide_keep", "decide_relabel", "decide_remove", "decide_undo"):
        assert app.button(key=key).disabled
    assert not app.button(key="review_next").disabled


def test_studies_without_classes_or_predictions(
    visit: Any, toy_study: Study, text_study: Study, tmp_path: Path
) -> None:
    app = visit(toy_study, PAGE, view="review", sort="suspicion")
    assert [card["row"] for card in cards(app)] == list(range(min(120, toy_study.dataset.n_train)))
    assert "Review" not in str(app.segmented_control)
    assert visit(text_study, PAGE, view="review").button(key="decide_keep")
    bare = write_study(tmp_path / "bare", stage="data")
    assert len(cards(visit(bare, PAGE, view="review"))) == bare.dataset.n_train
    assert visit(write_study(tmp_path / "spec", stage="spec"), PAGE)
