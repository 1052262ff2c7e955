"""The exact answer for a prediction: its job, what it keeps, and what makes training smoother."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.applications.replay.answer import KIND, check_job, read_answer, trainings
from engine.applications.replay.smoothness import Smoothness, levers_of, read_smoothness
from engine.data.templates import spec_from_template
from engine.models import build_model
from engine.running import processes
from engine.running.jobs.kinds import kind
from engine.store.errors import DataloupeError, UnknownName
from engine.store.spec import AlgorithmSpec
from tests.builders.copies import copy_of


def test_a_job_keeps_the_answer(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "default_workers", lambda device: 0)
    study = copy_of(small_study, tmp_path / "study")
    assert read_answer(study, 5, "mlp") is None
    assert trainings(study, "mlp", 2) == 9
    reports: list[tuple[int, int]] = []
    parameters = kind(KIND).checked(study, {"tests": ["#5"], "seeds": 2})
    kind(KIND).work(study, parameters, lambda done, total, what: reports.append((done, total)))
    assert reports[0] == (0, 3)
    assert reports[-1] == (3, 3)
    answer = read_answer(study, 5, "mlp")
    assert answer is not None
    assert answer.seeds == (0, 1)
    support, oppose = answer.strongest(4)
    assert (np.diff(answer.mean[support]) <= 0).all()
    assert (answer.mean[oppose] < 0).all()
    change = answer.without(support)
    assert change.low <= change.mean <= change.high < 0
    assert change.mean == pytest.approx(-answer.mean[support].sum())
    both = (answer.scores[:, support] > 0).sum(axis=0)
    assert answer.agreeing(support).tolist() == both.tolist()
    # Smoothness was measured with it, once.
    assert answer.smoothness == read_smoothness(study, "mlp")
    assert answer.smoothness is not None
    assert -1 <= answer.smoothness.value <= 1
    assert trainings(study, "mlp", 2) == 6


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({}, DataloupeError),
        ({"tests": ["nobody"]}, UnknownName),
        ({"tests": [1], "seeds": 0}, DataloupeError),
        ({"tests": [1], "seeds": "5"}, DataloupeError),
        ({"tests": [1], "algorithm": "other"}, UnknownName),
        ({"tests": [1], "models": 3}, DataloupeError),
    ],
)
def test_requests_that_cannot_be_answered(
    small_study: Study, parameters: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        check_job(small_study, parameters)


@pytest.mark.parametrize(
    ("architecture", "options", "changes", "expected", "not_expected"),
    [
        ("mlp", {}, {}, ["GELU", "batch_size", "learning_rate"], ["pooling", "BatchNorm"]),
        ("mlp", {"activation": "gelu"}, {"batch_size": 500}, [], ["GELU", "batch_size"]),
        ("resnet-small", {}, {}, ["GELU", "pooling", "BatchNorm"], []),
        ("resnet-small", {"activation": "gelu", "pooling": "average"}, {}, [], ["GELU", "pooling"]),
        ("resnet9", {"activation": "gelu"}, {}, ["pooling"], ["GELU"]),
        ("resnet9", {"activation": "gelu", "pooling": "average"}, {}, [], ["GELU", "pooling"]),
    ],
)
def test_levers_are_those_that_the_model_has(
    architecture: str,
    options: dict[str, Any],
    changes: dict[str, Any],
    expected: list[str],
    not_expected: list[str],
) -> None:
    spec = AlgorithmSpec.model_validate({"architecture": architecture, **changes})
    model = build_model(architecture, options, {"shape": [1, 28, 28]}, 3, seed=0)
    found = " ".join(levers_of(model, spec))
    assert all(word in found for word in expected)
    assert not any(word in found for word in not_expected)


def test_the_smooth_template_has_pulled_its_levers(tmp_path: Path) -> None:
    text = spec_from_template("photos-smooth", "x")
    spec = Study.create(tmp_path / "study", text).spec.algorithms["cnn"]
    shape = {"shape": [3, 32, 32]}
    model = build_model(spec.architecture, spec.architecture_options, shape, 3, seed=0)
    words = " ".join(levers_of(model, spec))
    assert not any(lever in words for lever in ("GELU", "pooling", "batch_size"))


def test_words_follow_the_value() -> None:
    words = {Smoothness(value, ()).words for value in (0.95, 0.6, 0.1, -0.2)}
    assert len(words) == 3
    assert Smoothness(0.9, ()).smooth
    assert not Smoothness(0.79, ()).smooth
