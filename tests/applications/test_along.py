"""The influence on one example over several outputs, in one request."""

from __future__ import annotations

import numpy as np
import pytest

from engine import Study
from engine.applications.along import AlongQuery, answer
from engine.applications.live import StoredQuery, explain_stored
from engine.store.errors import UnknownName

RANGES = ("timesteps:26-50", "timesteps:1-25")


def test_it_is_what_each_output_gives_alone(squares_study: Study) -> None:
    trains = (5, 0, 77)
    found = answer(AlongQuery(squares_study.root, "unet", 3, RANGES, trains))
    assert found.scores.shape == (2, 3)
    for place, name in enumerate(RANGES):
        alone = explain_stored(StoredQuery(squares_study.root, "unet", "test", 3, name))
        scores = np.zeros(96, np.float32)
        scores[alone.support], scores[alone.oppose] = alone.support_scores, alone.oppose_scores
        np.testing.assert_allclose(found.scores[place], scores[list(trains)], rtol=1e-3)
        assert found.spread[place] == pytest.approx(np.sqrt((scores**2).mean()), rel=1e-3)
        for column, sums in alone.by_group.items():
            np.testing.assert_allclose(
                found.by_group[place][column].support, sums.support, rtol=1e-3
            )
    assert not np.allclose(*found.scores, rtol=0.01)


def test_an_output_that_is_not_there(squares_study: Study) -> None:
    with pytest.raises(UnknownName):
        answer(AlongQuery(squares_study.root, "unet", 3, ("timesteps:0-9",), ()))
