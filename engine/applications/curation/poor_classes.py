"""Which classes a model predicts worse than the others, beyond chance: arrays only."""

from __future__ import annotations

import numpy as np

from engine.applications.modeldiff.significance import holm


def worse_than_the_rest(right: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """p-value of each class, after Holm's correction for all of them; 1 for one without examples.

    If the class did not matter, the right predictions would be a random draw from all of them, and
    the number within a class hypergeometric: the test is exact, and one-sided.

    Args:
        right: Whether each prediction is right, `[n]`.
        labels: Class number of each, `[n]`.
    """
    from scipy.stats import hypergeom  # takes a second to import, and most readers need none

    number = np.bincount(labels, minlength=classes)
    good = np.bincount(labels[right], minlength=classes)
    there = number > 0
    p = np.ones(classes)
    p[there] = holm(hypergeom.cdf(good[there], len(right), int(right.sum()), number[there]))
    return p
