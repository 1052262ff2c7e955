"""Slices saved from Explore: shared by all users of the study, with any name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.slices import save_slice, saved_slices
from tests.builders.page_contents import cards, words
from tests.builders.synthetic_study import CLASSES, write_study


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
    assert (other.query_params["result"], other.query_params["sort"]) == ("wrong", "output")
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
def test_invalid_slice_names_are_refused(visit: Any, tmp_path: Path, name: str) -> None:
    study = write_study(tmp_path / "s")
    with pytest.raises(DataloupeError, match="1 to 80 characters"):
        save_slice(study, name, {})
    assert saved_slices(study) == ([], [])


def test_slices_with_hostile_names_and_for_other_data(visit: Any, tmp_path: Path) -> None:
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


def test_a_broken_slice_is_reported_and_the_others_work(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    for name in ("one", "two"):
        save_slice(study, name, {})
    layout.slice_file(study.root, "one").write_text("{}")
    app = visit(study)
    assert "not a complete saved slice" in words(app)
    assert [button.label for button in app.button if "open slice" in str(button.key)] == [
        "two (24 / 24)"
    ]


def test_a_read_only_study_saves_no_slice(
    visit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path / "s")
    (study.root / "slices").write_text("in the way")
    app = save(visit(study), "one")
    assert "cannot be written" in words(app)
