"""How made examples came about, and which timesteps a frame stands for."""

from __future__ import annotations

import numpy as np
import pytest

from engine import Study
from engine.study.examples import read_stacked_arrays
from engine.study.trajectories import ranges_of, read_trajectory


@pytest.mark.parametrize(
    ("timesteps", "ranges"),
    [
        ((50, 28, 1), [(40, 50), (15, 39), (1, 14)]),
        ((10,), [(1, 10)]),
        ((3, 2, 1), [(3, 3), (2, 2), (1, 1)]),
    ],
)
def test_frames_share_out_all_timesteps(
    timesteps: tuple[int, ...], ranges: list[tuple[int, int]]
) -> None:
    found = ranges_of(timesteps, timesteps[0])
    assert found == ranges
    assert all(low <= step <= high for step, (low, high) in zip(timesteps, found, strict=True))


def test_made_examples_have_a_way_and_held_out_ones_none(
    made_study: Study, squares_study: Study
) -> None:
    way = read_trajectory(made_study, 7)
    assert way is not None
    assert way.timesteps == (50, 28, 1)
    np.testing.assert_array_equal(
        way.denoised[-1], read_stacked_arrays(made_study, "test")["input"][7]
    )
    assert read_trajectory(made_study, 8) is None
    assert read_trajectory(squares_study, 0) is None
