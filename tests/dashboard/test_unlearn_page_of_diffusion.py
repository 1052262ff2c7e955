"""Forget a class of pictures: the page of a study of diffusion, and its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import read_audits
from engine.applications.unlearning.made import read_made_by_audit
from engine.applications.unlearning.settings import Hyper
from engine.store.quantities import FEATURE_DISTANCE
from engine.study.removal_sets import keep_set
from tests.builders.copies import copy_of
from tests.builders.page_contents import everything, words
from tests.dashboard.test_api import client_of

N = 4


@pytest.fixture(scope="module")
def forgetful(
    made_study: Study, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, list[int]]:
    """A study with an audit of models that forgot the squares on the left."""
    study = copy_of(made_study, tmp_path_factory.mktemp("forgetful") / "study")
    rows = np.flatnonzero(study.table("train")["class"] == "left").tolist()
    hyper = {"both": Hyper(0.01)}
    audit(study, rows, methods=["both"], models=N, budget=0.3, hyper=hyper, workers=0)
    return study, rows


@pytest.fixture
def forgotten(forgetful: tuple[Study, list[int]], tmp_path: Path) -> tuple[Study, str]:
    study = copy_of(forgetful[0], tmp_path / "own")
    return study, keep_set(study, forgetful[1], "squares on the left").key


def test_the_audit_says_nothing_of_right_and_wrong(
    visit: Any, forgotten: tuple[Study, str]
) -> None:
    study, key = forgotten
    app = visit(study, "unlearn", set=key)
    text = everything(app)
    assert not app.exception
    assert "SCRUB" not in app.multiselect(key="unlearn_methods").options
    assert "Forgotten examples: distance from retrained models" in text
    assert "ccuracy" not in text


def test_the_page_shows_the_same_seeds_before_and_after(
    visit: Any, forgotten: tuple[Study, str]
) -> None:
    study, key = forgotten
    app = visit(study, "unlearn", set=key, pane="before", unlearned_by="both")
    assert not app.exception
    text = everything(app)
    (kept,) = read_audits(study)
    found = read_made_by_audit(study, kept, "both")
    assert found is not None
    seed = int(np.argmax(found.distances["before"]))
    before, after = (
        FEATURE_DISTANCE.text(found.distances[side][seed]) for side in ("before", "unlearned")
    )
    assert f"{before} → {after}" in text
    for side in ("before", "unlearned", "retrained"):
        assert f'alt="Seed {found.seeds[seed]}, {side}"' in words(app)
    assert "mean loss" in text
    assert "probability" not in text
    answer = client_of(study).get(f"/api/unlearn?set={key}").json()
    (one,) = answer["audits"]
    assert [made["seed"] for made in one["made"]] == found.seeds.tolist()
    assert one["made"][seed]["unlearned"]["value"] == found.distances["unlearned"][seed]
    assert one["methods"][0]["parts"][0]["accuracy"] is None
    assert one["supported"] == []
