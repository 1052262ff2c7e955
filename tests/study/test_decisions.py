"""Decisions about training labels: the newest counts, and nothing is lost."""

from __future__ import annotations

import pytest

from engine import DataloupeError, Study
from engine.store import layout
from engine.study.decisions import decide, newest, read_decisions, rows_of, undo
from engine.study.tags import changes, read_tags, tag
from tests.builders.synthetic_study import CLASSES, write_study


@pytest.fixture
def study(tmp_path) -> Study:
    return write_study(tmp_path / "study")


def other(study: Study, row: int) -> str:
    return next(name for name in CLASSES if name != study.table("train")["label"][row])


def test_the_newest_decision_counts_until_it_is_undone(study: Study) -> None:
    assert undo(study, 3) is None
    decide(study, 3, "keep", who="ada")
    decide(study, 3, "relabel", other(study, 3), "eve")
    assert decide(study, 3, "relabel", other(study, 3), "eve") is None  # as it is
    found = read_decisions(study)[3]
    assert (found.verdict, found.label, found.who) == ("relabel", other(study, 3), "eve")
    taken_back = undo(study, 3)
    assert taken_back is not None
    assert taken_back.verdict == "relabel"
    assert read_decisions(study)[3].verdict == "keep"
    undo(study, 3)
    assert read_decisions(study) == {}


def test_rows_of_a_verdict(study: Study) -> None:
    for row in (9, 4):
        decide(study, row, "remove")
    decide(study, 1, "keep")
    found = read_decisions(study)
    assert rows_of(found, "remove").tolist() == [4, 9]
    last = newest(found)
    assert last is not None
    assert last.row == 1


def test_tags_of_predictions_and_decisions_do_not_mix(study: Study) -> None:
    tag(study, "cnn", 3, "remove")
    decide(study, 3, "keep")
    assert read_tags(study, "cnn")[3].tags == ["remove"]
    assert read_decisions(study)[3].verdict == "keep"
    assert len(changes(study, "cnn")) == 1


def test_what_is_no_decision(study: Study) -> None:
    label = str(study.table("train")["label"][2])
    for verdict, to, words in (
        ("burn", None, "A decision is keep, relabel, remove"),
        ("relabel", "Spoon", "There is no class 'Spoon'"),
        ("relabel", None, "There is no class"),
        ("relabel", label, "has the label"),
    ):
        with pytest.raises(DataloupeError, match=words):
            decide(study, 2, verdict, to)  # type: ignore[arg-type]
    with pytest.raises(DataloupeError):
        decide(study, 10**6, "keep")
    assert not layout.triage_files(study.root)
