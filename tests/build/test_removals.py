"""Removal runs: planned from the rankings, trained once, and used for the sizes of effects."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import Study, store
from engine.attribution.evaluation.ceiling import RepeatedRuns
from engine.attribution.evaluation.effect_sizes import TYPICAL
from engine.attribution.evaluation.removal_plan import MOST
from engine.build.effects import chance_of_means, fit_effects, seed_noise
from engine.build.retraining import model_without
from engine.store import layout
from engine.store.spec import PARTS
from engine.study.examples import read_stacked_arrays
from engine.study.removal_runs import (
    finished_removals,
    plan_removals,
    read_removal_runs,
    wanted_removals,
)
from engine.study.run_banks import read_repeated_runs
from engine.study.score_matrices import read_score_matrix
from engine.tasks import load_task
from engine.training.outputs import evaluate
from tests.builders.copies import copy_of

ALGORITHM = "mlp"


def respecified(study: Study, **subset_runs: int) -> Study:
    """The study with other values in `[subset_runs]`."""
    path = layout.spec_file(study.root)
    text = path.read_text()
    for name, value in subset_runs.items():
        text = re.sub(rf"^{name} = .*\n", "", text, flags=re.MULTILINE)
        text = text.replace("[subset_runs]\n", f"[subset_runs]\n{name} = {value}\n")
    path.write_text(text)
    return Study.open(study.root)


def test_there_are_as_many_as_test_masks(small_study: Study) -> None:
    masks = small_study.spec.subset_runs.masks
    assert wanted_removals(small_study, ALGORITHM) == masks // len(PARTS)
    assert finished_removals(small_study, ALGORITHM) == masks // len(PARTS)


def test_a_run_leaves_out_what_was_planned(small_study: Study) -> None:
    plans, runs = plan_removals(small_study, ALGORITHM), read_removal_runs(small_study, ALGORITHM)
    for plan, run in zip(plans, runs, strict=True):
        assert plan.rows.tolist() == run.removed.tolist()
        assert plan.targets.tolist() == run.targets.tolist()
        assert 0 < len(run.removed) <= MOST * small_study.dataset.n_train


def test_a_run_is_compared_with_the_checkpoint_of_the_same_seed(small_study: Study) -> None:
    run = read_removal_runs(small_study, ALGORITHM)[1]
    model = model_without(small_study, ALGORITHM, tuple(run.removed.tolist()), 1, "cpu")
    task, arrays = load_task(small_study.dataset.task), read_stacked_arrays(small_study, "test")
    encoding = small_study.dataset.encoding
    without = evaluate(task, model, arrays, encoding, 512, "cpu")["output"]
    file = layout.outputs_file(small_study.root, ALGORITHM, 1, "test")
    before = store.read_tensors(file)["output"]
    np.testing.assert_allclose(run.change, without - before, atol=1e-5)


def test_runs_are_trained_once_and_again_where_rankings_changed(
    small_study: Study, tmp_path: Path
) -> None:
    study = copy_of(small_study, tmp_path / "own")
    files = [layout.removal_run_file(study.root, ALGORITHM, n) for n in range(3)]
    first = [file.read_bytes() for file in files]
    study.build(workers=0)
    assert [file.read_bytes() for file in files] == first
    files[1].unlink()
    study.build(workers=0)
    assert [file.read_bytes() for file in files] == first
    tensors = {name: np.array(value) for name, value in store.read_tensors(files[2]).items()}
    store.write_tensors(files[2], tensors, "planned from other rankings")
    study.build(workers=0)
    assert [file.read_bytes() for file in files] == first


def test_without_runs_sizes_are_typical_ones(small_study: Study, tmp_path: Path) -> None:
    study = respecified(copy_of(small_study, tmp_path / "own"), removals=0)
    study.build(workers=0)
    assert wanted_removals(study, ALGORITHM) == 0
    scores, noise = read_score_matrix(study, ALGORITHM), seed_noise(study, ALGORITHM)
    repeated = read_repeated_runs(study, ALGORITHM)
    chance, residuals = chance_of_means(repeated, noise), repeated.means.var(axis=0, ddof=1)
    found, mean_square = fit_effects(scores, 2.0, 0.5, residuals, chance, noise, [])
    assert found == replace(TYPICAL, score_error=found.score_error)
    rows = scores.rows(np.arange(scores.n_test))
    np.testing.assert_allclose(mean_square, np.square(rows).mean(axis=1), rtol=1e-5)


def test_chance_comes_from_repeated_runs_where_there_are_any() -> None:
    generator = np.random.default_rng(0)
    runs = 3 * generator.normal(size=(400, 2, 5))  # of 400 masks, two seeds each
    means, squares = runs.mean(axis=1), np.square(runs - runs.mean(axis=1, keepdims=True))
    twice = RepeatedRuns(means, squares.sum(axis=1), np.full(400, 2))
    noise = np.full(5, 100.0)
    np.testing.assert_allclose(chance_of_means(twice, noise), 9 / 2, rtol=0.25)
    once = RepeatedRuns(means, np.zeros_like(means), np.full(400, 1))
    np.testing.assert_array_equal(chance_of_means(once, noise), noise)


@pytest.mark.parametrize("count", [4])
def test_more_runs_keep_the_finished_ones(small_study: Study, tmp_path: Path, count: int) -> None:
    study = respecified(copy_of(small_study, tmp_path / "own"), removals=count)
    before = layout.removal_run_file(study.root, ALGORITHM, 0).stat().st_mtime_ns
    study.build(workers=0)
    assert finished_removals(study, ALGORITHM) == count
    assert layout.removal_run_file(study.root, ALGORITHM, 0).stat().st_mtime_ns == before
