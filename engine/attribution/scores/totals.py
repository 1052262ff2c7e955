"""Sums of scores by training and by test example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Totals:
    """Sums of positive and of negative scores, in float64, accumulated over blocks of τ.

    A training example's sum over all predictions says how much it matters. A prediction's sum over
    all training examples is the whole that shares of influence refer to. Both are in units of the
    scores, so a prediction with large scores counts more in a training example's sum.

    Attributes:
        test_support, test_oppose: `[n_test]`, over the training rows added so far.
        train_support, train_oppose: `[n_train]`, over all test rows; 0 for rows not added yet.
    """

    test_support: np.ndarray
    test_oppose: np.ndarray
    train_support: np.ndarray
    train_oppose: np.ndarray

    @classmethod
    def zeros(cls, n_test: int, n_train: int) -> Totals:
        return cls(np.zeros(n_test), np.zeros(n_test), np.zeros(n_train), np.zeros(n_train))

    def add(self, first: int, block: np.ndarray) -> None:
        """Add the scores `[n_test, b]` of b training rows, starting at row `first`."""
        mine = slice(first, first + block.shape[1])
        for sign, tests, trains in (
            (block > 0, self.test_support, self.train_support),
            (block < 0, self.test_oppose, self.train_oppose),
        ):
            tests += block.sum(axis=1, dtype=np.float64, where=sign)
            trains[mine] += block.sum(axis=0, dtype=np.float64, where=sign)
