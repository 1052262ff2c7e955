"""Exact scores on Explain: what they cost, the job, and the answer beside the estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.applications.replay.answer import KIND
from engine.running.jobs import queue
from engine.store import layout
from engine.study.rankings import read_top
from tests.builders.kept_replay import keep_replay, keep_smoothness
from tests.builders.page_contents import component_of, words
from tests.builders.synthetic_study import write_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return write_study(tmp_path / "study", n_train=60, n_test=24)


def test_it_is_offered_with_its_cost_and_runs_as_a_job(
    visit: Any, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "resume", lambda root: None)  # no process is started
    app = visit(study, "explain", test="#3")
    assert "through the training of 5 models" in words(app)
    app.button(key="compute_exactly").click().run()
    assert not app.exception
    (job,) = queue.jobs(study.root)
    assert job.kind == KIND
    assert job.parameters["tests"] == [3]
    again = visit(study, "explain", test="#3")  # came back
    assert "You can close the browser" in words(again)
    assert not [one for one in again.button if one.key == "compute_exactly"]
    other = visit(study, "explain", test="#4")
    assert "You can close the browser" not in words(other)


@pytest.mark.parametrize("value", [0.93, 0.2])
def test_the_answer_stands_beside_the_estimate(visit: Any, study: Study, value: float) -> None:
    algorithm = next(iter(study.algorithms))
    top = read_top(study, algorithm)
    first, other = int(top["support_index"][3][0]), int(top["oppose_index"][3][0])
    scores = np.zeros((5, 60), np.float32)
    scores[:, first] = (1.0, 1.0, 1.0, 1.0, 2.0)
    scores[:, other] = (0.5, 0.5, 0.5, 0.5, -0.5)  # the estimate has it opposing
    keep_replay(study, 3, scores)
    keep_smoothness(study, value)
    app = visit(study, "explain", test="#3")
    shown = words(app)
    assert "Of the 2 strongest supporters the estimate names 1" in shown
    supporting = component_of(app, "groups")[1]["groups"][0]
    assert "changes by about −1.50 (models: −1.50 to −1.50)" in supporting["words"]
    assert [card["note"] for card in supporting["items"]] == [
        "helps in 5 of 5",
        "helps in 4 of 5",
    ]
    assert [card["tag"] for card in supporting["items"]] == ["estimate #1", "not estimated"]
    assert f"Smoothness {value:.2f}" in shown
    assert ("Training would be smoother with larger batches (batch_size)." in shown) == (
        value < 0.8
    )
    assert not [one for one in app.button if one.key == "compute_exactly"]


def test_explain_is_whole_where_what_training_starts_from_is_missing(
    visit: Any, study: Study
) -> None:
    path = layout.spec_file(study.root)
    header = f"[algorithms.{next(iter(study.algorithms))}]\n"
    spec = path.read_text()
    assert header in spec
    path.write_text(spec.replace(header, f'{header}initial_weights = "gone.safetensors"\n'))
    app = visit(Study.open(study.root), "explain", test="#3")
    shown = words(app)
    assert component_of(app, "groups")[0]["groups"][0]["items"]
    assert "This study cannot be shown" not in shown
    assert "Exact scores" not in shown
