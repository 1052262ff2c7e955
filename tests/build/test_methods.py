"""Methods other than TRAK are stored, ranked, explained and shown like TRAK."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from scipy.sparse import csr_array
from streamlit.testing.v1 import AppTest

from dashboard.read.studies import STUDY_VARIABLE
from engine import DataloupeError, StaleError, Study
from engine.build.method_files import write_method
from engine.store import layout
from engine.study.methods import ranked_methods, scored_methods
from engine.study.names import resolve_algorithm
from engine.study.rankings import find_influences, read_top_of_training

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
BADGE = {"method": "Planted", "reason": "Scores that the test made up."}
PLANTED = np.random.default_rng(0).normal(size=(60, 300)).astype(np.float32)


def plant(study: Study, fingerprint: str = "planted") -> None:
    write_method(study, "mlp", "planted", lambda tests: PLANTED[tests], BADGE, fingerprint)


@pytest.fixture
def study(small_study: Study, tmp_path: Path) -> Study:
    copy = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    plant(copy)
    copy.build(workers=0)
    return copy


def test_a_build_ranks_every_method_and_the_preferred_is_the_default(study: Study) -> None:
    quality = study.quality()
    assert quality is not None
    assert set(ranked_methods(study, resolve_algorithm(study))) == {
        "trak",
        "datamodel",
        "hybrid",
        "planted",
    }
    assert ranked_methods(study, resolve_algorithm(study))[0] == quality.preferred
    np.testing.assert_array_equal(study.scores([3, 5], method="planted"), PLANTED[[3, 5]])
    order = np.argsort(-PLANTED[7], kind="stable")
    explanation = study.explain(7, k=6, method="planted")
    assert [one.row for one in explanation.supporting] == order[:6].tolist()
    assert [one.row for one in explanation.opposing] == order[::-1][:6].tolist()
    assert str(explanation.badge).startswith("Planted · LDS ")
    assert (
        read_top_of_training(study, 2, method="planted")["support_index"][0]
        == PLANTED[:, 2].argmax()
    )
    assert study.explain(7, k=6).method == quality.preferred
    assert study.explain(7, k=6, method="trak").badge.method == "TRAK"


def test_each_method_has_its_own_index(study: Study) -> None:
    rows, *_ = find_influences(study, 4, 100, method="planted")
    assert len(set(rows) & set(np.argsort(-PLANTED[4])[:100])) >= 95


def test_sparse_scores_are_ranked_like_dense_ones(study: Study) -> None:
    sparse = np.where(np.abs(PLANTED) > 1.5, PLANTED, 0)
    badge = {"method": "Sparse", "reason": "Mostly zero."}
    write_method(study, "mlp", "sparse", lambda tests: csr_array(sparse[tests]), badge, "sparse")
    study.build(workers=0)
    np.testing.assert_array_equal(study.scores([1, 2], method="sparse"), sparse[[1, 2]])
    supporting = study.explain(1, k=300, method="sparse").supporting
    assert {one.row for one in supporting} == set(np.flatnonzero(sparse[1] > 0))


def test_the_error_for_an_unknown_method_lists_the_known_ones(study: Study) -> None:
    with pytest.raises(
        DataloupeError,
        match=r"method 'ouija'; it has trak|it has datamodel|it has hybrid|it has planted",
    ):
        study.explain(0, method="ouija")


def test_different_scores_under_the_same_name_are_refused(study: Study) -> None:
    before = layout.method_file(study.root, "mlp", "planted").read_bytes()
    with pytest.raises(StaleError):
        plant(study, fingerprint="something else")
    assert layout.method_file(study.root, "mlp", "planted").read_bytes() == before


def test_missing_score_shards_are_written_again(study: Study) -> None:
    shard = layout.method_scores_file(study.root, "mlp", "planted", 0)
    before = shard.read_bytes()
    shard.unlink()
    layout.method_file(study.root, "mlp", "planted").unlink()
    assert "planted" not in scored_methods(study, "mlp")
    plant(study)
    assert shard.read_bytes() == before
    assert "planted" in scored_methods(study, "mlp")


def test_switching_the_method_on_the_page_changes_the_link(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    st.cache_resource.clear()
    monkeypatch.setenv(STUDY_VARIABLE, str(study.root))
    app = AppTest.from_file(str(APP), default_timeout=30)
    app.query_params["test"] = "test-7"
    app.switch_page("pages/explain.py").run()
    assert app.query_params["method"] == ranked_methods(study, resolve_algorithm(study))[0]
    app.selectbox(key="method").select("planted").run()
    assert not app.exception
    assert app.query_params["method"] == "planted"
    assert "Scores that the test made up." in _words(app)
    app.query_params["method"] = "ouija"
    app.run()
    assert "no scores by the method “ouija”" in "".join(
        part.value for part in app.warning
    ) + _words(app)


def _words(app: Any) -> str:
    return "\n".join(part.value for part in app.html)
