"""What a removal does by replay: on What if, and as a removal set on Brittle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine import Study
from engine.applications.brittle import job
from engine.applications.brittle.exact_support import exact_proof, exact_support
from engine.applications.brittle.supports import find
from engine.applications.replay.removals import exact_changes
from engine.cli.main import main
from engine.store import layout
from engine.store.errors import DataloupeError
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.kept_replay import keep_replay
from tests.builders.synthetic_study import write_study


def test_only_single_predictions_of_this_recipe_count(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", n_train=60, n_test=24)
    algorithm = next(iter(study.algorithms))
    removed = np.array([1, 2])
    assert exact_changes(study, algorithm, removed) == []
    scores = np.zeros((2, 60), np.float32)
    scores[:, 1] = (1.0, -0.5)
    keep_replay(study, 4, scores)
    scores[:, 2] = (1.0, 1.0)
    keep_replay(study, 7, scores)
    first, second = exact_changes(study, algorithm, removed)
    assert (first.test, second.test) == (7, 4)
    assert (first.change.low, first.change.mean, first.change.high) == (-2.0, -1.25, -0.5)
    assert (first.models, first.agreeing, second.agreeing) == (2, 2, 1)
    # Another recipe makes other models.
    path = layout.spec_file(study.root)
    header = f"[algorithms.{algorithm}]\n"
    path.write_text(path.read_text().replace(header, f"{header}weight_decay = 0.125\n"))
    assert exact_changes(Study.open(study.root), algorithm, removed) == []


def test_the_command_says_which_is_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "study", n_train=60, n_test=24)
    command = ["whatif", str(study.root), "--remove", "#1,#2"]
    assert main(command) == 0
    assert "By replay" not in capsys.readouterr().out
    scores = np.full((3, 60), 0.25, np.float32)
    keep_replay(study, 7, scores)
    assert main(command) == 0
    assert "falls in 3 of 3 models" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["exact"]
    assert (one["row"], one["mean"], one["models"]) == (7, -0.5, 3)


@pytest.fixture
def study(small_study: Study, tmp_path: Path) -> Study:
    return give_units(copy_of(small_study, tmp_path / "study"))


def test_a_removal_set_by_replay_is_found_and_verified(study: Study) -> None:
    supports = find(study)
    row = int(supports.ranked[0])
    assert exact_support(study, supports, row) is None
    gap, right = float(supports.logit_gap[row]), bool(supports.right[row])
    sign = 1 if right else -1
    # Each of five examples takes 40 % of the gap: without three of them it is beyond 0.
    chosen = np.array([9, 5, 30, 31, 44])
    scores = np.zeros((5, study.dataset.n_train), np.float32)
    scores[:, chosen] = sign * abs(gap) * np.linspace(0.42, 0.38, 5)
    keep_replay(study, row, scores)
    found = exact_support(study, supports, row)
    assert found is not None
    assert found.rows.tolist() == chosen.tolist()
    np.testing.assert_allclose(found.after[0], gap * 0.58, rtol=1e-5)
    assert (np.diff(found.flip_probability) > 0).all()
    reached = np.flatnonzero(found.flip_probability >= supports.probability)
    assert found.size == reached[0] + 1 >= 3
    request = job.check_job(study, {"tests": [row], "seeds": 1, "exact": True})
    job.run_job(study, request | {"workers": 0}, lambda done, total, what: None)
    proof = exact_proof(found, study.verifications())
    assert proof is not None
    assert proof.removed == sorted(found.removal.tolist())
    assert exact_proof(found, []) is None


def test_a_set_by_replay_is_refused_where_there_is_none(study: Study) -> None:
    supports = find(study)
    row = int(supports.ranked[0])
    asked = {"tests": [row], "exact": True}
    with pytest.raises(DataloupeError, match="no exact scores yet"):
        job.check_job(study, asked)
    keep_replay(study, row, np.full((2, study.dataset.n_train), 1e-6, np.float32))
    with pytest.raises(DataloupeError, match="not predicted to flip"):
        job.check_job(study, asked)


def test_models_that_disagree_are_not_sure(study: Study) -> None:
    supports = find(study)
    row = int(supports.ranked[0])
    sign = 1 if supports.right[row] else -1
    alike = np.zeros((5, study.dataset.n_train), np.float32)
    alike[:, 9] = sign * 3 * abs(supports.logit_gap[row])
    keep_replay(study, row, alike)
    sure = exact_support(study, supports, row)
    apart = alike.copy()
    apart[:, 9] *= np.array([3.5, 0.1, 0.1, 0.1, 1.2])
    keep_replay(study, row, apart)
    unsure = exact_support(study, supports, row)
    assert sure is not None
    assert unsure is not None
    np.testing.assert_allclose(unsure.after[0], sure.after[0], rtol=1e-4)
    assert unsure.flip_probability[0] < sure.flip_probability[0] - 0.05
