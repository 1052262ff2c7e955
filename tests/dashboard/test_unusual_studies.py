"""Pages of studies with hostile names, texts, two algorithms, or very few or many classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from engine.study.rankings import find_influences
from tests.builders.hostile_names import HOSTILE
from tests.builders.page_contents import cards, component_of, group_words, words
from tests.builders.synthetic_study import write_study


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


def test_hostile_file_names_are_shown_as_text_and_can_be_opened(visit: Any, tmp_path: Path) -> None:
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
        query = parse_qs(urlparse(cards(training)[0]["href"]).query)
        assert query["test"][0] in set(ids)
        if "bold" in HOSTILE[row]:
            assert r"\*\*bold\*\*" in training.button(key="back").label
        training.button(key="back").click().run()
        assert training.query_params["test"] == ids[row]


def test_texts_are_shown_instead_of_pictures(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", display="text", classes=("good", "bad"))
    shown = cards(visit(study))
    assert shown[0]["text"] == study.table("test")["text"][0]
    app = visit(study, "explain", test="test-0")
    text = study.table("test")["text"][0]
    assert f'<blockquote dir="auto" class="dl-text">{text}</blockquote>' in words(app)
    first = cards(app, 0)[0]
    assert first["text"] == study.table("train")["text"][first["row"]]


def test_the_algorithm_can_be_switched(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", algorithms=("cnn", "mlp"))
    app = visit(study, "explain", test="test-0")
    app.selectbox(key="algorithm").select("mlp").run()
    assert app.query_params["algorithm"] == "mlp"
    assert [card["row"] for card in cards(app, 0)] == list(find_influences(study, 0, 12, "mlp")[0])


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    ("n_test", "classes"), [(1, ("a", "b")), (30, [f"class {n}" for n in range(1000)])]
)
def test_tiny_studies_and_many_classes(
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
