"""Tags and notes: what stands after any changes, and that nobody's are lost."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import DataloupeError, Study, store
from engine.store import layout
from engine.study.tags import Change, changes, note, read_tags, replay, tag, undo, untag
from tests.builders.synthetic_study import write_study


@pytest.fixture
def study(tmp_path) -> Study:
    return write_study(tmp_path / "study")


def test_tags_and_notes_stand_until_they_are_undone(study: Study) -> None:
    tag(study, "cnn", 3, " mislabelled ")
    note(study, "cnn", 3, "looks like a coat\nto me")
    tag(study, "cnn", 5, "leak")
    found = read_tags(study, "cnn")
    assert (found[3].tags, found[3].notes) == (["mislabelled"], ["looks like a coat\nto me"])
    assert found[5].tags == ["leak"]
    taken_back = undo(study, "cnn", 3)
    assert taken_back is not None
    assert taken_back.action == "note"
    assert read_tags(study, "cnn")[3].notes == []
    undo(study, "cnn", 3)
    assert read_tags(study, "cnn")[3].tags == []
    assert undo(study, "cnn", 3) is None
    assert read_tags(study, "cnn")[5].tags == ["leak"]


def test_what_changed_nothing_is_not_undone(study: Study) -> None:
    assert tag(study, "cnn", 1, "a") is not None
    assert tag(study, "cnn", 1, "a") is None
    assert untag(study, "cnn", 1, "never there") is None
    assert read_tags(study, "cnn")[1].tags == ["a"]
    undo(study, "cnn", 1)
    assert read_tags(study, "cnn")[1].tags == []


def test_taking_a_tag_off_is_undone_too(study: Study) -> None:
    tag(study, "cnn", 1, "a")
    untag(study, "cnn", 1, "a")
    assert read_tags(study, "cnn")[1].tags == []
    undo(study, "cnn", 1)
    assert read_tags(study, "cnn")[1].tags == ["a"]


def test_many_at_once_lose_nothing(study: Study) -> None:
    def work(name: str) -> None:
        for number in range(15):
            note(Study.open(study.root), "cnn", 2, f"{name} {number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notes = read_tags(study, "cnn")[2].notes
    assert sorted(notes) == sorted(f"{name} {number}" for name in "abc" for number in range(15))
    for name in "abc":
        assert [n for n in notes if n[0] == name] == [f"{name} {number}" for number in range(15)]


def test_changes_of_other_data_and_broken_ones_do_not_count(study: Study) -> None:
    tag(study, "cnn", 1, "a")
    other = tag(study, "cnn", 1, "b")
    path = layout.triage_file(study.root, other.id)
    store.write_json(path, {**vars(other), "data": "of another"}, "")
    layout.triage_file(study.root, "broken").write_text("{")
    assert [change.value for change in changes(study, "cnn")] == ["a"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, "two\nlines"])
def test_no_proper_tag(study: Study, name: str) -> None:
    with pytest.raises(DataloupeError, match="A tag has 1 to 40 characters"):
        tag(study, "cnn", 1, name)
    with pytest.raises(DataloupeError, match="A note has 1 to 2,000 characters"):
        note(study, "cnn", 1, "x" * 2001)
    assert not layout.triage_files(study.root)


ACTIONS = st.lists(st.tuples(st.sampled_from(["tag", "untag", "note"]), st.sampled_from("abc")))


@given(ACTIONS, st.integers(0, 20))
def test_undoing_is_as_if_the_last_changes_had_never_been(
    steps: list[tuple[str, str]], back: int
) -> None:
    def change(number: int, action: str, value: str) -> Change:
        return Change(str(number), number, "cnn", 0, action, value, "")

    every = [change(number, *step) for number, step in enumerate(steps)]
    log = list(every)
    for number in range(back):
        last = replay(log)[0].last if log else None
        if last is None:
            break
        log.append(change(1000 + number, "undo", last.id))
    undone = {one.value for one in log if one.action == "undo"}
    kept = [one for one in every if one.id not in undone]
    assert replay(log).get(0) == replay(kept).get(0) or not kept
