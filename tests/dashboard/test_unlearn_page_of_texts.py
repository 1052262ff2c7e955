"""Unlearn a fact: the page of a study of texts, and its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import read_audits
from engine.applications.unlearning.before_after import read_before_after
from engine.applications.unlearning.settings import Hyper
from engine.store.quantities import SHARE
from engine.study.removal_sets import keep_set
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, everything
from tests.dashboard.test_api import client_of

N = 4


@pytest.fixture(scope="module")
def forgetful(
    facts_study: Study, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, list[int]]:
    """A study with an audit of models that forgot where Alba lives."""
    study = copy_of(facts_study, tmp_path_factory.mktemp("forgetful") / "study")
    rows = np.flatnonzero(study.table("train")["subject"] == "Alba").tolist()
    hyper = {"both": Hyper(0.01)}
    audit(study, rows, methods=["both"], models=N, budget=0.3, hyper=hyper, workers=0)
    return study, rows


@pytest.fixture
def forgotten(forgetful: tuple[Study, list[int]], tmp_path: Path) -> tuple[Study, str]:
    study = copy_of(forgetful[0], tmp_path / "own")
    return study, keep_set(study, forgetful[1], "where Alba lives").key


def test_methods_that_need_classes_are_not_offered(
    visit: Any, forgotten: tuple[Study, str]
) -> None:
    study, key = forgotten
    app = visit(study, "unlearn", set=key)
    assert "Datamodel matching" in app.multiselect(key="unlearn_methods").options
    assert "SCRUB" not in app.multiselect(key="unlearn_methods").options
    assert "Forgotten examples: distance from retrained models" in everything(app)


def test_the_page_shows_whether_models_still_answer(
    visit: Any, forgotten: tuple[Study, str]
) -> None:
    study, key = forgotten
    app = visit(study, "unlearn", set=key, pane="before", unlearned_by="both")
    text = everything(app)
    assert "Test texts that they support most" in text
    assert "probability of the expected text’s tokens" in text
    assert "label" not in text
    question = int(np.flatnonzero(study.table("test")["subject"] == "Alba")[0])
    asked = study.table("test")["text"][question]
    (card,) = [card for card in cards(app, gallery=1) if card["text"] == asked]
    (kept,) = read_audits(study)
    found = read_before_after(study, kept, "both", "test")
    place = found.rows.tolist().index(question)
    before, after, oracle = (
        SHARE.text(one.share_right[place]) for one in (found.before, found.unlearned, found.oracle)
    )
    assert card["note"] == f"{before} → {after} right"
    assert card["score"] == f"retrained {oracle}"
    answer = client_of(study).get(f"/api/unlearn?set={key}").json()
    (one,) = answer["audits"]
    assert [test["row"] for test in one["supported"]] == found.rows.tolist()
    assert one["supported"][place]["retrained"]["value"] == found.oracle.share_right[place]
    assert client_of(study).get("/api/unlearn").json()["audits"][0]["supported"] == []


def test_outputs_are_predicted_before_anything_is_trained(
    visit: Any, facts_study: Study, tmp_path: Path
) -> None:
    study = copy_of(facts_study, tmp_path / "raw")
    key = keep_set(study, [0, 1, 2], "three").key
    app = visit(study, "unlearn", set=key, pane="effect")
    assert not app.exception
    assert [button.label for button in app.button if button.key == "predict"] == ["Predict outputs"]
