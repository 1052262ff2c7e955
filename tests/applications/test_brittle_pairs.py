"""Brittle pairs: those that lose or gain the first rank without a few training pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Study
from engine.applications.brittle.gaps import change_together, logit_gaps
from engine.applications.brittle.supports import find, verified, verify_brittle
from engine.applications.brittle.table import brittle_table
from engine.applications.verification import read_verifications
from engine.applications.verification.record import share_flipped
from engine.build.models import initial_model
from engine.build.tasks import task_of
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.tasks.contrastive import pairs
from engine.tasks.outcomes import OWN_PAIR, RETRIEVAL
from engine.training.outputs import read_batch
from engine.training.trainer import train
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of


@pytest.fixture(scope="module")
def calibrated(pairs_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return give_units(copy_of(pairs_study, tmp_path_factory.mktemp("brittle") / "pairs"), "towers")


def test_gaps_are_those_of_the_side_that_leads_least() -> None:
    """Two pairs among two others: the caption is ahead by .1, then the picture is behind by .2."""
    record = np.array([[[0.9, 0.8, -2.0], [0.9, 0.2, 0.1]], [[0.5, 0.1, 0.2], [0.5, 0.7, 0.3]]])
    own = np.zeros(2, int)
    rivals = RETRIEVAL.rivals(record, own)
    assert rivals.tolist() == [1, -1]
    np.testing.assert_allclose(RETRIEVAL.gaps(record, own, rivals), [0.1, -0.2])


def test_gaps_change_sign_with_the_first_rank(calibrated: Study) -> None:
    gaps, agreeing, known = logit_gaps(calibrated, "towers")
    right = calibrated.predictions("test")["correct"].to_numpy(bool)
    np.testing.assert_array_equal(gaps.mean(axis=0) > 0, right)
    assert known
    assert right.any()
    assert not right.all()
    assert 0 < agreeing.mean() <= 1


def test_gaps_are_put_into_the_unit_of_the_output() -> None:
    """Gaps of .2 a unit of the output, whatever the levels of the examples."""
    generator = np.random.default_rng(0)
    outputs = generator.normal(size=(3, 50)) + 5 * np.arange(50)
    gaps = 0.2 * (outputs - outputs.mean(axis=0)) + generator.normal(size=50)
    assert change_together(gaps, outputs) == pytest.approx(0.2)
    assert np.isnan(change_together(gaps[:1], outputs[:1]))


def test_brittle_pairs_are_verified_by_retraining(calibrated: Study, tmp_path: Path) -> None:
    study = copy_of(calibrated, tmp_path / "own")
    supports = find(study, at_most=20, probability=0.5)
    # In a tiny study chance is larger than any effect: without it, and with small gaps, all flip.
    nothing = np.zeros(study.dataset.n_test)
    likely = replace(
        supports,
        logit_gap=supports.logit_gap / 1000,
        logit_gap_deviation=nothing,
        agreement=nothing + 1,
    )
    test = int(likely.ranked[0])
    (found,) = verify_brittle(study, likely, [test], seeds=2, workers=0)
    assert found.removed == sorted(likely.removal(test).tolist())
    assert verified(likely, [found])[test].id == found.id
    outcome = found.of(test)
    assert outcome is not None
    assert outcome.flips is not None
    (row,) = brittle_table(study, likely, [found], rows=np.array([test])).to_pylist()
    assert row["status"] == ("verified" if outcome.flipped else "refuted")
    assert row["confidence"] is None
    assert (row["other"] == "its own pair") == (not row["correct"])


def test_only_the_first_rank_flips() -> None:
    """A wrong pair that finds another wrong one instead is as wrong as before."""
    wrong, other = "the caption of test pair 3", "the picture of test pair 4"
    flips = RETRIEVAL.flips
    assert [flips(wrong, other), flips(wrong, wrong), flips(OWN_PAIR, OWN_PAIR)] == [False] * 3
    assert [flips(OWN_PAIR, wrong), flips(other, OWN_PAIR)] == [True] * 2
    found = share_flipped(wrong, [wrong, other, OWN_PAIR, other], RETRIEVAL)
    assert found is not None
    assert found.mean == 0.25


def retrieved(study: Study, removed: list[int], seed: int) -> np.ndarray:
    """Whether each test pair has the first rank both ways, by a model that is trained here."""
    spec, number = study.spec.algorithms["towers"], checkpoint_seed(study, seed)
    task, arrays = task_of(study), read_stacked_arrays(study, "train")
    model = train(
        task,
        initial_model(study, spec, number),
        arrays,
        study.dataset.encoding,
        spec,
        number,
        "cpu",
        np.delete(np.arange(study.dataset.n_train), removed),
    )
    batch = read_batch(
        task, read_stacked_arrays(study, "test"), slice(None), study.dataset.encoding, "cpu"
    )
    with torch.no_grad():
        found = pairs(model, batch)
    cosines = (found.pictures @ found.captions.T).numpy()
    keys = [read_stacked_arrays(study, "test")[n][:] for n in ("picture_key", "caption_key")]
    alike = np.any([key[:, None] == key for key in keys], axis=0)
    right = np.ones(len(cosines), bool)
    for scores in (cosines, cosines.T):
        others = np.where(alike, -np.inf, scores).max(axis=1)
        right &= scores.diagonal() >= others
    return right


def test_a_verification_retrains_without_the_pairs_and_counts_the_first_rank(
    calibrated: Study, tmp_path: Path
) -> None:
    """Models that are trained here, and ranks that are computed here, give the same counts."""
    study = copy_of(calibrated, tmp_path / "own")
    removed, tests, seeds = list(range(0, 60)), list(range(24)), 3
    found = study.verify(removed, tests=tests, seeds=seeds, workers=0)
    before = study.predictions("test")["correct"].to_numpy(bool)
    for rows, name in ((removed, "flips"), ([], "flips_with")):
        after = np.stack([retrieved(study, rows, seed) for seed in range(seeds)])
        wanted = (after != before).mean(axis=0)
        counted = [getattr(outcome, name).mean for outcome in found.outcomes]
        np.testing.assert_allclose(counted, wanted)
    # Without most of the pairs models are worse, so what is counted is more than chance.
    without, with_all = (
        np.mean([getattr(one, name).mean for one in found.outcomes if before[one.test]])
        for name in ("flips", "flips_with")
    )
    assert without > with_all
    (kept,) = read_verifications(study, "towers")
    assert kept.outcomes == found.outcomes


def test_a_removal_of_nothing_that_matters_flips_as_often_as_chance(
    calibrated: Study, tmp_path: Path
) -> None:
    """Under the null, without two random pairs of 96, flips are those of other seeds."""
    study = copy_of(calibrated, tmp_path / "own")
    found = study.verify([17, 60], tests=range(24), seeds=4, workers=0, control=True)
    shares = [
        np.mean([getattr(outcome, name).mean for outcome in outcomes])
        for outcomes, name in (
            (found.outcomes, "flips"),
            (found.outcomes, "flips_with"),
            (found.control, "flips"),
        )
    ]
    assert 0 < shares[1] < 0.5
    assert max(shares) - min(shares) < 0.15
