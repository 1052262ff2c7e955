"""Brittle pairs: those that lose or gain the first rank without a few training pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import Study
from engine.applications.brittle.gaps import change_together, logit_gaps
from engine.applications.brittle.supports import find, verified, verify_brittle
from engine.applications.brittle.table import brittle_table
from engine.tasks.outcomes import RETRIEVAL
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
