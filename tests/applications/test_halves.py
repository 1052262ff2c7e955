"""ModelDiff of datamodels and of the hybrid: judged by an algorithm's own subset runs split in two.

Two algorithms that learn the same cannot be told apart; a planted dependence is found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine.applications.modeldiff.halves import Half, runs_of, scores_of, ways_to_halve
from hypothesis import given
from hypothesis import strategies as st

from engine import Study
from engine.applications.modeldiff.comparison import compare, read_comparison, side
from engine.applications.modeldiff.residuals import directions, residuals
from engine.applications.modeldiff.significance import (
    LEVEL,
    MOST_SPLITS,
    Null,
    p_values,
    split_masks,
)
from engine.attribution.datamodels.fit import fit_datamodels
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.sparse import SparseScores
from engine.build.build import build_data
from engine.store.layout import DATAMODEL, HYBRID, TRAK
from engine.study.score_matrices import read_score_matrix
from tests.builders.copies import copy_of

N_TRAIN, N_TEST, MASKS = 100, 30, 250
GROUP, TESTS = 12, 8
"""How many training examples the planted dependence rests on, and on how many test examples."""

ALGORITHMS = ("one", "same", "other")
SPEC = """\
name = "Halves"
[data]
source = "fashion-mnist"
train_limit = 100
test_limit = 30
[task]
mean = 0.286
std = 0.353
[search]
top_k = 10
""" + "".join(
    f"""\
[algorithms.{name}]
architecture = "mlp"
architecture_options = {{ widths = [16] }}
epochs = 1
learning_rate = 0.05
batch_size = 50
checkpoints = 5
"""
    for name in ALGORITHMS
)


def truth(planted: bool) -> np.ndarray:
    """Weights `[n_test, n_train]` that the outputs of runs are made of."""
    rng = np.random.default_rng(1)
    shape = (N_TEST, N_TRAIN)
    weights = rng.standard_normal(shape) * (rng.random(shape) < 0.05)
    if planted:
        weights[:TESTS, :GROUP] += 1
    return weights


def runs(seed: int, planted: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(masks, outputs) of linear runs with noise."""
    rng = np.random.default_rng(seed)
    masks = rng.random((MASKS, N_TRAIN)) < 0.5
    outputs = masks @ truth(planted).T + 0.5 * rng.standard_normal((MASKS, N_TEST))
    return masks, outputs.astype(np.float32)


# --- splitting masks -----------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 1))
def test_masks_are_split_alike_in_fit_and_validation(held: list[bool], share: float) -> None:
    held_out = np.array(held, bool)
    found = split_masks(held_out, share)
    sizes = [int(min(share, 0.5) * np.sum(held_out == kind)) for kind in (True, False)]
    assert len(found) == (MOST_SPLITS if min(sizes) >= 3 else 0)
    for first, second in found:
        assert sorted(first + second) == list(range(len(held)))
        assert [np.sum(held_out[list(second)] == kind) for kind in (True, False)] == sizes
    assert found == split_masks(held_out, share)


# --- by arrays alone: chance is not taken for a difference ---------------------------------------


def lasso(bank: tuple[np.ndarray, np.ndarray], rows: tuple[int, ...]) -> SparseScores:
    chosen = list(rows)
    masks, outputs = (array[chosen] for array in bank)
    found = fit_datamodels(masks, outputs, HELD_OUT[chosen])
    return SparseScores([found.weights])


HELD_OUT = np.arange(MASKS) % 4 == 3


def smallest_p(bank: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Of A∖B, judged by the splits of A alone: less careful than a comparison is."""
    everything = tuple(range(MASKS))
    found = directions(residuals(lasso(bank, everything), lasso(other, everything)), 3)
    null = []
    for first, second in split_masks(HELD_OUT, 0.5)[:3]:
        halves = residuals(lasso(bank, first), lasso(bank, second))
        null.append(float(directions(halves, 3, tolerance=1e-3).distinguishing.max()))
    return float(p_values(found.distinguishing, Null(tuple(null))).min())


def test_two_banks_of_one_algorithm_are_not_told_apart() -> None:
    false = [smallest_p(runs(seed), runs(100 + seed)) < LEVEL for seed in range(20)]
    assert np.mean(false) <= 0.05


# --- in a study ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three algorithms with banks made elsewhere: two alike, and one with a planted dependence."""
    folder: Path = tmp_path_factory.mktemp("halves")
    study = Study.create(folder / "study", SPEC)
    build_data(study)  # Checkpoints would show that these are no runs on these pictures.
    for number, name in enumerate(study.algorithms):
        masks, outputs = runs(number, planted=name == "other")
        (folder / name).mkdir()
        np.save(folder / name / "masks.npy", masks)
        np.save(folder / name / "margins.npy", outputs)
        study.import_bank(folder / name, algorithm=name, output="margin")
    study.build(workers=0)
    return Study.open(study.root)


@pytest.fixture
def study(built: Study, tmp_path: Path) -> Study:
    """A copy of it."""
    return copy_of(built, tmp_path / "study")


def compared(study: Study, a: str, b: str, method: str) -> dict[str, Any]:
    return read_comparison(study, compare(study, side(study, a, method), side(study, b, method), 3))


@pytest.mark.parametrize("method", [DATAMODEL, HYBRID])
def test_a_planted_dependence_is_found_and_chance_is_not(study: Study, method: str) -> None:
    about = compared(study, "other", "one", method)
    first = about["directions"]["a"][0]
    assert first["significant"]
    assert set(first["positive"][:GROUP]) == set(range(GROUP))
    assert first["tests"]
    assert set(first["tests"]) <= set(range(TESTS))
    assert "Tested against splits" in about["significance"]
    assert "subset runs of other and of one" in about["significance"]
    nulls = [null for side in about["null"].values() for null in side.values()]
    assert [len(null) for null in nulls] == 4 * [MOST_SPLITS]
    assert not about["indicative"]

    about = compared(study, "same", "one", method)
    assert not any(one["significant"] for both in about["directions"].values() for one in both)


def test_halves_are_what_the_stage_would_fit_to_them(study: Study) -> None:
    """All runs and all checkpoints as one half give the study's own scores."""
    fitted = study.bank("one").part("fit", "validation")
    everything = Half((0, 1, 2, 3, 4), tuple(range(len(fitted))))
    each = np.eye(N_TRAIN, dtype=np.float32)  # Directions are found of scores before the threshold.
    for method, tolerance in ((TRAK, 1e-5), (DATAMODEL, 1e-6), (HYBRID, 1e-4)):
        own = read_score_matrix(study, "one", method).matmat(each)
        runs = runs_of(study, "one", method)
        found = scores_of(study, "one", method, everything, runs).matmat(each)
        np.testing.assert_allclose(found, own, atol=tolerance * np.abs(own).max())


def test_a_split_is_as_lopsided_as_the_comparison(study: Study) -> None:
    runs = {name: runs_of(study, name, HYBRID) for name in ("one", "other")}
    for way in ways_to_halve(study, "one", "one", "other", HYBRID, runs):
        assert sorted((*way.like_a.checkpoints, *way.like_b.checkpoints)) == [0, 1, 2, 3, 4]
        assert not set(way.like_a.masks) & set(way.like_b.masks)
        assert abs(len(way.like_a.masks) - len(way.like_b.masks)) <= 2
    assert ways_to_halve(study, "one", "one", "other", "imported", runs) == []
    assert isinstance(scores_of(study, "one", HYBRID, way.like_a, runs["one"]), DenseScores)
    assert not [path for path in study.root.iterdir() if path.name.startswith("tmp")]
