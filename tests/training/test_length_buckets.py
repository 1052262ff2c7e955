"""Batches of texts sorted by length."""

from __future__ import annotations

import numpy as np
import pytest

from engine.training.length_buckets import length_buckets


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (1, 8), (60, 1), (60, 7), (60, 60), (9, 64)])
def test_every_example_is_in_one_batch_and_batches_are_sorted(n, batch_size):
    lengths = np.random.default_rng(n).integers(1, 30, n).tolist()
    found = length_buckets(np.array(lengths), batch_size)
    assert sorted(int(row) for rows in found for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == batch_size for rows in found[:-1])
    ordered = [lengths[row] for rows in found for row in rows]
    assert ordered == sorted(lengths, reverse=True)


def test_examples_of_one_length_keep_their_order():
    found = length_buckets(np.array([3, 9, 3, 9, 3]), 2)
    assert [rows.tolist() for rows in found] == [[1, 3], [0, 2], [4]]


def test_a_batch_has_an_example():
    assert length_buckets(np.array([], int), 4) == []
    with pytest.raises(ValueError, match="1 or more"):
        length_buckets(np.array([1, 2]), 0)
