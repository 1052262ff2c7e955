"""What chance in training does to a comparison: pairs that imitate A and B as one algorithm.

The pairs are as noisy as the comparison, neither more nor less. Two algorithms that learn the same
are not told apart; a planted dependence is found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.judging_modeldiff import (
    Judged,
    Simulated,
    bank,
    checkpoints,
    judge,
    same_algorithm,
    truth,
    with_runs,
)
from engine import Study
from engine.applications.modeldiff.chance import chance_of
from engine.applications.modeldiff.checkpoint_noise import (
    MOST_PAIRS,
    Contrast,
    plan,
    split_checkpoints,
)
from engine.applications.modeldiff.checkpoint_scores import sum_of_checkpoints
from engine.applications.modeldiff.comparison import compare, read_comparison, side
from engine.applications.modeldiff.exchanged_runs import can_exchange, exchange_runs
from engine.applications.modeldiff.refits import refit_datamodel, refit_hybrid
from engine.applications.modeldiff.significance import LEVEL
from engine.attribution.datamodels.run_bank import RunBank
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


def weights_of_runs(planted: bool) -> np.ndarray:
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
    outputs = masks @ weights_of_runs(planted).T + 0.5 * rng.standard_normal((MASKS, N_TEST))
    return masks, outputs.astype(np.float32)


# --- the noise of checkpoints --------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 8))
def test_a_contrast_is_as_noisy_as_the_mean_and_holds_no_signal(p: int, q: int) -> None:
    shares = Contrast(True, tuple(range(p)), tuple(range(p, p + q))).shares
    assert sorted(shares) == list(range(p + q))
    assert sum(shares.values()) == pytest.approx(0)
    assert sum(share**2 for share in shares.values()) == pytest.approx(1 / (p + q))


@given(st.integers(1, 12), st.integers(1, 12))
def test_the_sides_of_a_pair_differ_as_much_as_two_algorithms_would(a: int, b: int) -> None:
    found = plan(a, b)
    if max(a, b) < 3:
        assert found is None
        return
    assert found is not None
    assert len(set(found.differences)) == len(found.differences) <= MOST_PAIRS
    for difference in found.differences:
        assert len(difference) == (2 if min(a, b) >= 3 else 1)
        variances = [factor**2 / (a if one.of_a else b) for one, factor in difference]
        assert sum(variances) == pytest.approx(1 / a + 1 / b)
    if a == b:
        assert found.independent == pytest.approx(a + b - 2)
    assert found.independent <= a + b - 2 + 1e-9
    if min(a, b) < 3:
        assert {len(one.second) for ((one, _),) in found.differences} == {min(a, b, max(a, b) // 2)}


def test_checkpoints_are_split_in_different_ways_and_each_split_comes_once() -> None:
    assert split_checkpoints(1, 1) == []
    assert split_checkpoints(2, 2) == [((1,), (0,))]
    assert len(split_checkpoints(4, 2)) == 3
    assert len(split_checkpoints(5, 2)) == 10
    assert len(split_checkpoints(5, 1)) == 5
    of_many = split_checkpoints(40, 20)
    assert len({first for first, _ in of_many}) == 10
    shared = set.intersection(*({*first} for first, _ in of_many))
    assert len(shared) < 3  # drawn from all 137 billion splits, not from the first of a list
    many = split_checkpoints(12, 6)
    assert len({frozenset((frozenset(a), frozenset(b))) for a, b in many}) == len(many) == 10
    for larger, smaller in many:
        assert sorted(larger + smaller) == list(range(12))


# --- exchanging runs -----------------------------------------------------------------------------


def a_bank(masks: np.ndarray, outputs: np.ndarray) -> RunBank:
    count = len(masks)
    return RunBank(masks, None, outputs.astype(np.float32), np.ones(count), np.arange(count))


def test_half_of_the_runs_are_exchanged_and_all_else_stays() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((100, 30)) < 0.5
    noise = rng.standard_normal((2, 100, 4))
    a, b = a_bank(masks, 5 + 3 * noise[0]), a_bank(masks, noise[1])
    found = exchange_runs(a, b, np.random.default_rng(1))
    for one, own in zip(found, (a, b), strict=True):
        np.testing.assert_array_equal(one.masks, masks)
        np.testing.assert_array_equal(one.held_out, own.held_out)
    own_a, own_b = (
        np.isclose(one.test, own.test, atol=1e-5).all(axis=1)
        for one, own in zip(found, (a, b), strict=True)
    )
    np.testing.assert_array_equal(own_a, own_b)
    for kind in (True, False):
        assert own_a[a.held_out == kind].mean() == 0.5
    at = np.flatnonzero(~own_a)
    theirs = (b.test - b.test.mean(axis=0)) / b.test.std(axis=0)
    np.testing.assert_allclose(
        found[0].test[at], (theirs * a.test.std(axis=0) + a.test.mean(axis=0))[at], atol=1e-5
    )


def test_smaller_banks_exchange_so_that_both_hold_the_same_share() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((count, 30)) < 0.5 for count in (300, 100)]
    a, b = (a_bank(mask, rng.standard_normal((len(mask), 2))) for mask in masks)
    found = exchange_runs(a, b, rng)
    kept = [
        np.mean((one.masks == own.masks).all(axis=1))
        for one, own in zip(found, (a, b), strict=True)
    ]
    assert kept[0] == pytest.approx(0.75, abs=0.02)
    assert kept[1] == pytest.approx(0.25, abs=0.02)
    assert can_exchange(a, b)
    assert not can_exchange(a, a_bank(masks[1][:25], b.test[:25]))


def test_outputs_that_do_not_vary_stay_finite() -> None:
    masks = np.random.default_rng(0).random((40, 30)) < 0.5
    same = a_bank(masks, np.ones((40, 2)))
    for one in exchange_runs(same, same, np.random.default_rng(0)):
        np.testing.assert_array_equal(one.test, same.test)


# --- by simulation: chance is not taken for a difference, and a difference is found --------------


def ranks(judged: list[Judged]) -> float:
    """Mean share of null values under the value observed: a half if the null has the right size."""
    return float(
        np.mean(
            [
                np.mean(np.array(values) < gaps.max())
                for one in judged
                for values, gaps in zip((one.null.a, one.null.b), one.gaps, strict=True)
            ]
        )
    )


def test_scores_of_one_algorithm_are_not_told_apart_and_the_null_has_their_size() -> None:
    judged = [judge(*same_algorithm(seed, 5)) for seed in range(500, 540)]
    assert sum(one.smallest_p < LEVEL for one in judged) <= 6  # more have p = 0.01 at 5 %
    assert 0.35 < ranks(judged) < 0.65


def test_hybrids_of_one_algorithm_are_not_told_apart_and_the_null_has_their_size() -> None:
    judged = [judge(*same_algorithm(seed, 5, 40)) for seed in range(500, 506)]
    assert sum(one.smallest_p < LEVEL for one in judged) <= 3
    assert 0.25 < ranks(judged) < 0.75


@pytest.mark.parametrize(
    ("of_a", "of_b", "noisier"), [(5, 1, 1.0), (8, 3, 1.0), (5, 40, 1.0), (5, 5, 2.0)]
)
def test_the_null_has_the_right_size_if_one_algorithm_is_noisier(
    of_a: int, of_b: int, noisier: float
) -> None:
    judged = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        signal = truth(rng)
        a, b = (checkpoints(rng, signal, count, "shared") for count in (of_a, of_b))
        judged.append(judge(Simulated((signal + noisier * (a - signal)).astype("f")), Simulated(b)))
    assert sum(one.smallest_p < LEVEL for one in judged) <= 3
    assert 0.25 < ranks(judged) < 0.75


@pytest.mark.parametrize("with_bank", [False, True])
def test_a_planted_direction_is_found(with_bank: bool) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        signal = truth(rng)
        planted = signal.copy()
        planted[:12, :10] += 3
        masks = rng.random((80, signal.shape[1])) < 0.5
        sides = []
        for one in (planted, signal):
            algorithm = Simulated(checkpoints(rng, one, 5, "low rank"))
            sides.append(with_runs(algorithm, bank(rng, one, masks)) if with_bank else algorithm)
        assert judge(*sides).smallest_p < 0.01


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
    assert about["significance"].startswith(f"Tested against {MOST_PAIRS} imitations of both")
    assert "subset runs" in about["significance"]
    assert [len(about["null"][key]) for key in "ab"] == [MOST_PAIRS, MOST_PAIRS]
    assert not about["indicative"]

    about = compared(study, "same", "one", method)
    assert not any(one["significant"] for both in about["directions"].values() for one in both)


def test_refits_are_what_the_stage_fits(study: Study) -> None:
    """The study's own runs and all checkpoints give the study's own scores."""
    runs = study.bank("one").part("fit", "validation")
    trak = sum_of_checkpoints(study, "one", dict.fromkeys(range(5), 0.2))
    each = np.eye(N_TRAIN, dtype=np.float32)  # Directions are found of scores before the threshold.
    for method, found, tolerance in (
        (TRAK, trak, 1e-5),
        (DATAMODEL, refit_datamodel(runs), 1e-6),
        (HYBRID, refit_hybrid(study, "one", trak, runs), 1e-4),
    ):
        own = read_score_matrix(study, "one", method).matmat(each)
        np.testing.assert_allclose(found.matmat(each), own, atol=tolerance * np.abs(own).max())
    assert not [path for path in study.root.iterdir() if path.name.startswith("tmp")]


def test_nothing_is_imitated_without_knowing_how(study: Study) -> None:
    assert chance_of(study, "one", "other", "imported") is None
    found = chance_of(study, "one", "other", TRAK)
    assert found is not None
    assert (found.pairs, found.independent) == (MOST_PAIRS, pytest.approx(8))
