"""The Overview page in every state."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some

from dashboard.parts.charts.confusion_matrix import confusion_counts, most_mistaken
from dashboard.read import studies
from dashboard.read.studies import Examples, mix_ups
from engine.api import Study
from engine.store.quantities import ACCURACY, SHARE
from engine.study.rankings import read_totals
from tests.builders.page_contents import cards, component, words
from tests.builders.synthetic_study import CLASSES, write_study


def test_overview_counts_and_links_every_confusion(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "overview", result="wrong")
    table = complete_study.table("test").join(complete_study.predictions("test"))
    rows = component(app, "rows")["rows"]
    for label, cells, recall in zip(CLASSES, rows, component(app, "rows")["recall"], strict=True):
        of = table[table["label"] == label]
        assert recall["shown"] == ACCURACY.text(of["correct"].mean())
        assert recall["of"] == f"{len(of):,}"
        for predicted, cell in zip(CLASSES, cells, strict=True):
            both = (table["label"] == label) & (table["predicted"] == predicted)
            assert cell["count"] == both.sum()
            if not cell["count"]:
                continue
            query = parse_qs(urlparse(cell["href"]).query)
            assert (query["label"], query["predicted"]) == ([label], [predicted])
            of = int((table["label"] == label).sum())
            assert cell["shown"] == SHARE.text(cell["count"] / of)  # of the true class: one scale
            assert "result" not in query
    assert f"{table['correct'].mean():.1%}" in words(app)
    assert f"{(~table['correct']).sum()}<small>test pictures" in words(app)


def test_overview_shows_the_most_influential_data_and_the_full_badge(
    visit: Any, complete_study: Study
) -> None:
    app = visit(complete_study, "overview")
    totals = read_totals(complete_study)
    weight = totals["train_support"] - totals["train_oppose"]
    shown = cards(app)
    assert [card["row"] for card in shown] == list(np.argsort(-weight, kind="stable")[:22])
    assert shown[0]["href"].startswith("training?")
    assert shown[0]["bar"] == 1
    for text in ("32,768 per checkpoint", "Not measured", "recall@20", "gave no warnings"):
        assert text in words(app)


def test_overview_links_to_the_mistakes(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, "overview")
    (button,) = [b for b in app.button if "mistakes" in b.label]
    button.click().run()
    wrong = np.flatnonzero(~complete_study.predictions("test")["correct"])
    assert [card["row"] for card in cards(app)] == list(wrong)
    app = visit(complete_study, "overview")
    (button,) = [b for b in app.button if "Most confident" in b.label]
    button.click().run()
    worst = complete_study.predictions("test")["confidence"].iloc[wrong].idxmax()
    assert app.query_params["test"] == f"test-{worst}"


@pytest.mark.parametrize(
    ("stage", "message", "absent"),
    [
        ("spec", "nothing is computed yet", "Test accuracy"),
        ("data", "as soon as the predictions are computed", "Test accuracy"),
        ("predictions", "as soon as the scores are computed", "Most influential"),
    ],
)
def test_overview_of_a_study_that_is_being_built(
    visit: Any, tmp_path: Path, stage: Any, message: str, absent: str
) -> None:
    app = visit(write_study(tmp_path / "s", stage=stage), "overview")
    assert message in words(app)
    assert absent not in words(app)


@given(some.lists(some.tuples(some.integers(0, 4), some.integers(0, 4)), min_size=1))
def test_confusions_are_counted(pairs: list[tuple[int, int]]) -> None:
    label, predicted = np.array(pairs).T
    codes = {"label": label, "predicted": predicted}
    table = pd.DataFrame(index=range(len(pairs)))
    found = Examples(table, pd.Index([]), list("abcde"), codes, {}, {}, "margin")
    counts = confusion_counts(found)
    assert all(counts[a, b] == pairs.count((a, b)) for a in range(5) for b in range(5))
    listed = [tuple(one) for one in mix_ups(found, {}).tolist()]
    with pytest.MonkeyPatch.context() as classes:
        classes.setattr(studies, "MOST_COUNTERS", 0)  # as of too many classes to count all pairs
        assert [tuple(one) for one in mix_ups(found, {}).tolist()] == listed
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


def test_mix_ups_among_a_thousand_classes(visit: Any, tmp_path: Path) -> None:
    classes = [f"class {n}" for n in range(1000)]
    study = write_study(tmp_path / "s", n_test=400, classes=classes, wrong=0.5)
    table = study.table("test").join(study.predictions("test"))
    wrong = table[~table["correct"]]
    app = visit(study, "overview")
    pairs, mistaken = component(app, "lists")["lists"]
    number = len(wrong.groupby(["label", "predicted"]))
    assert pairs["title"] == f"Most frequent confusions (24 / {number})"
    for cell in pairs["cells"]:
        query = parse_qs(urlparse(cell["href"]).query)
        both = (wrong["label"] == query["label"][0]) & (wrong["predicted"] == query["predicted"][0])
        assert cell["count"] == both.sum() > 0
    for cell in mistaken["cells"]:
        query = parse_qs(urlparse(cell["href"]).query)
        assert query["result"] == ["wrong"]
        assert cell["count"] == (wrong["label"] == query["label"][0]).sum() > 0
    label = wrong["label"].iloc[0]
    app.selectbox(key="confused").select_index(classes.index(label)).run()
    (pairs,) = component(app, "lists")["lists"]
    concerned = wrong[(wrong["label"] == label) | (wrong["predicted"] == label)]
    assert sum(cell["count"] for cell in pairs["cells"]) == len(concerned)
    explore = visit(study, result="wrong")
    assert len(explore.selectbox(key="label").options) == 1000
    assert len(explore.selectbox(key="pair").options) == min(number, 100)


def test_what_is_counted_of_all_examples_is_counted_once() -> None:
    codes = {"label": np.array([0, 1, 1]), "predicted": np.array([0, 0, 1])}
    found = Examples(
        pd.DataFrame(index=range(3)), pd.Index([]), list("ab"), codes, {}, {}, "margin"
    )
    for _ in range(2):
        assert studies.counts(found, "label", {}).tolist() == [1, 2]
        assert studies.counts(found, "label", {"label": "a"}).tolist() == [1, 2]
        assert studies.counts(found, "label", {"predicted": "a"}).tolist() == [1, 1]
        assert mix_ups(found, {}).tolist() == [[1, 0, 1]]
        assert mix_ups(found, {"only": [0, 2]}).tolist() == []
    assert set(found.counted) == {"label", "mix-ups"}
