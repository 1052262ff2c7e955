"""URL parameters of a slice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from dashboard.slice_parameters import MOST_PICKED, position_in_slice, read_rows, rows_text


@given(some.sets(some.integers(0, 999), min_size=1, max_size=MOST_PICKED))
def test_rows_survive_a_round_trip_through_the_url(rows: set[int]) -> None:
    problems: list[str] = []
    text = rows_text(sorted(rows))
    assert read_rows("only", {"only": text}, 1000, problems) == tuple(sorted(rows))
    assert not problems


@given(some.sets(some.integers(0, 50)), some.integers(0, 50))
def test_position_in_a_slice(rows: set[int], row: int) -> None:
    place, before, after = position_in_slice(np.array(sorted(rows), dtype=int), row)
    assert before == max((other for other in rows if other < row), default=None)
    assert after == min((other for other in rows if other > row), default=None)
    assert place == (sorted(rows).index(row) + 1 if row in rows else None)
