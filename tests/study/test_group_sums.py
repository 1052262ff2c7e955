"""Shares of the support that come from groups of training examples."""

from __future__ import annotations

import numpy as np
import pytest

from engine import Study
from engine.applications.live import StoredQuery, explain_stored
from engine.study.group_sums import sums_by_group


def test_shares_are_sums_over_all_training_examples(squares_study: Study) -> None:
    scores = np.random.default_rng(0).normal(size=96).astype(np.float32)
    (sums,) = sums_by_group(squares_study, scores).values()
    sides = squares_study.table("train")["class"].to_numpy()
    for name, support, oppose, size in zip(
        sums.names, sums.support, sums.oppose, sums.examples, strict=True
    ):
        mine = scores[sides == name]
        assert support == pytest.approx(mine.clip(min=0).sum() / scores.clip(min=0).sum())
        assert oppose == pytest.approx(mine.clip(max=0).sum() / scores.clip(max=0).sum())
        assert size == (sides == name).mean()
    assert sums.support[0] == sums.support.max()
    np.testing.assert_allclose([sums.support.sum(), sums.oppose.sum(), sums.examples.sum()], 1)


def test_live_answers_have_them_too(squares_study: Study) -> None:
    found = explain_stored(StoredQuery(squares_study.root, "unet", "test", 2))
    (live,) = found.by_group.values()
    (stored,) = sums_by_group(squares_study, squares_study.scores([2])[0]).values()
    assert live.names == stored.names
    np.testing.assert_allclose(live.support, stored.support, rtol=1e-3)


def test_where_there_is_no_support(squares_study: Study) -> None:
    (sums,) = sums_by_group(squares_study, np.zeros(96, np.float32)).values()
    assert not sums.support.any()
    assert not sums.oppose.any()
