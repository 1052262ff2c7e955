"""Sums of scores by training and by test example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Totals:
    """Sums of positive and of negative scores, in float64, accumulated over tiles of τ.

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

    def add(self, tests: range, trains: range, scores: np.ndarray, compiled: bool = False) -> None:
        """Add the scores `[tests, trains]`; with compiled loops if there are many."""
        mine, theirs = slice(tests.start, tests.stop), slice(trains.start, trains.stop)
        test_side = self.test_support[mine], self.test_oppose[mine]
        train_side = self.train_support[theirs], self.train_oppose[theirs]
        if compiled:
            from engine.attribution.scores.keep_strongest import add_totals

            if scores.flags.c_contiguous:
                add_totals(scores, *test_side, *train_side)
            else:
                add_totals(np.ascontiguousarray(scores.T), *train_side, *test_side)
            return
        for sign, of_tests, of_trains in zip(
            (scores > 0, scores < 0), test_side, train_side, strict=True
        ):
            of_tests += scores.sum(axis=1, dtype=np.float64, where=sign)
            of_trains += scores.sum(axis=0, dtype=np.float64, where=sign)
