"""Sums of scores by training and by test example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Totals:
    """Sums of scores, positive and negative apart, added up in float64 over blocks of τ.

    A training example's sum over all predictions says how much it matters; a prediction's sum over
    all training examples is what shares of influence are shares of. The units are those of the
    scores, so a prediction with large scores weighs more in a training example's sum.

    Attributes:
        test_support, test_oppose: `[n_test]`, over the training rows that were added.
        train_support, train_oppose: `[n_train]`, over all test rows; 0 where nothing was added.
    """

    test_support: np.ndarray
    test_oppose: np.ndarray
    train_support: np.ndarray
    train_oppose: np.ndarray

    @classmethod
    def zeros(cls, n_test: int, n_train: int) -> Totals:
        return cls(np.zeros(n_test), np.zeros(n_test), np.zeros(n_train), np.zeros(n_train))

    def add(self, first: int, block: np.ndarray) -> None:
        """Add scores `[n_test, b]` of the training rows from `first` on."""
        mine = slice(first, first + block.shape[1])
        for sign, tests, trains in (
            (block > 0, self.test_support, self.train_support),
            (block < 0, self.test_oppose, self.train_oppose),
        ):
            tests += block.sum(axis=1, dtype=np.float64, where=sign)
            trains[mine] += block.sum(axis=0, dtype=np.float64, where=sign)
