"""The training examples nearest in their values, and whether one of them is repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.study import nearest_values
from engine.study.examples import read_stacked_arrays
from engine.study.nearest_values import COMPARED, nearest_in_values


def test_they_are_those_with_the_smallest_distances(squares_study: Study) -> None:
    found = nearest_in_values(squares_study, 4)
    assert found is not None
    tests, training = (read_stacked_arrays(squares_study, s)["input"] for s in ("test", "train"))
    differences = (np.array(training, float) - tests[4]).reshape(len(training), -1) / 255
    distances = np.sqrt((differences**2).mean(1))
    np.testing.assert_allclose(found.distances, np.sort(distances)[:COMPARED], rtol=1e-5)
    np.testing.assert_allclose(distances[found.rows], found.distances, rtol=1e-5)


@pytest.mark.parametrize(("changed", "memorized"), [(0, True), (3, True), (150, False)])
def test_a_repeated_example_is_pointed_out(
    squares_study: Study, monkeypatch: pytest.MonkeyPatch, changed: int, memorized: bool
) -> None:
    """A copy of training example 7, of which some values of 255 are changed."""
    arrays = {s: dict(read_stacked_arrays(squares_study, s)) for s in ("test", "train")}
    copy = np.array(arrays["train"]["input"][7:8])
    copy[copy >= 150] -= changed
    arrays["test"] = {"input": copy}

    def read(study: Study, split: Any) -> dict[str, Any]:
        return arrays[split]

    monkeypatch.setattr(nearest_values, "read_stacked_arrays", read)
    found = nearest_in_values(squares_study, 0)
    assert found is not None
    assert found.memorized == memorized
    if memorized:
        assert found.rows[0] == 7


def test_what_cannot_be_compared(
    squares_study: Study, text_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nearest_in_values(text_study, 0) is None, "token ids have no distance"
    monkeypatch.setattr(nearest_values, "MOST_BYTES", 96 * 64 - 1)
    assert nearest_in_values(squares_study, 0) is None
