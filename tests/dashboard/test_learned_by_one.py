"""Compare: training examples that only one of two algorithms learned, on the page and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine import Study
from engine.applications.modeldiff.learned import learned
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, component_of, everything
from tests.dashboard.test_api import client_of


def test_corrections_are_shown_first(visit: Any, corrected_study: Study, tmp_path: Path) -> None:
    study = copy_of(corrected_study, tmp_path / "own")
    app = visit(study, "compare", a="t5", b="without", pane="learned", selected_train="3-4")
    found = learned(study, "t5", "without")
    rows = found.by("a").tolist()
    assert [card["row"] for card in cards(app)] == rows[:28]
    assert cards(app)[0]["text"].startswith(study.table("train")["source"][rows[0]])
    text = everything(app)
    assert f"{len(rows)} training texts, with higher log odds in t5" in text
    (gallery,) = [one for one in component_of(app, "groups") if one["selectable"]]
    assert gallery["selected"] == [3, 4]


def test_the_api_lists_them(corrected_study: Study) -> None:
    answer = client_of(corrected_study).get("/api/compare?a=t5&b=without").json()
    found = learned(corrected_study, "t5", "without")
    for side in "ab":
        rows = found.by(side).tolist()
        assert [one["row"] for one in answer[side]["learned"]] == rows[:100]
        assert answer[side]["learned_in_all"] == len(rows)
        for one in answer[side]["learned"]:
            assert one["a"]["value"] == found.a[one["row"]]
