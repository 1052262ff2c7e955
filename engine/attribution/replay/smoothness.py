"""Is training smooth enough for its derivative to tell what removing examples does?

Three trainings: with all weights at 1, with those of some random examples at ½, and at 0. Where
training is smooth, the second half of the way changes the outputs as the first half did.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SHARE = 0.01
"""Share of the training examples whose weights change."""


def smoothness(
    outputs: Callable[[np.ndarray], np.ndarray], n_train: int, seed: int, share: float = SHARE
) -> float:
    """Agreement in sign of the two steps, weighted by the sizes of the first: −1 to 1.

    1 is smooth; about 0 is not smooth at all (the steps have nothing to do with each other).

    Args:
        outputs: Weights of the training examples `[n_train]` → outputs of the test examples, of a
            model that is trained with the same seed every time.
        seed: Of the examples whose weights change.
    """
    rows = np.random.default_rng(seed).permutation(n_train)[: max(1, round(share * n_train))]
    found = []
    for weight in (1.0, 0.5, 0.0):
        weights = np.ones(n_train)
        weights[rows] = weight
        found.append(np.asarray(outputs(weights), np.float64))
    return agreement(found[1] - found[0], found[2] - found[1])


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Mean agreement in sign of two arrays, weighted by the sizes in the first; 0 if it is 0."""
    sizes = np.abs(first)
    total = sizes.sum()
    return float((sizes * np.sign(first) * np.sign(second)).sum() / total) if total else 0.0
