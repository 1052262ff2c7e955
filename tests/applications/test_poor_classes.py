"""Classes that are predicted worse than the rest: no more often by chance than it should, and found
where they are."""

from __future__ import annotations

import numpy as np
import pytest

from engine.applications.curation.poor_classes import worse_than_the_rest
from engine.applications.modeldiff.significance import LEVEL

STUDIES = 2000


@pytest.mark.parametrize(("classes", "accuracy"), [(2, 0.9), (10, 0.8), (100, 0.6)])
def test_equal_classes_are_rarely_told_apart(classes: int, accuracy: float) -> None:
    """Some class is named in at most 5 % of studies in which the class does not matter."""
    generator = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), 30)
    studies = (generator.random(len(labels)) < accuracy for _ in range(STUDIES))
    named = [worse_than_the_rest(right, labels, classes).min() < LEVEL for right in studies]
    most = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / STUDIES)
    assert np.mean(named) <= most


def test_a_worse_class_is_found() -> None:
    labels = np.repeat(np.arange(10), 100)
    right = np.random.default_rng(0).random(1000) < np.where(labels == 3, 0.6, 0.9)
    p = worse_than_the_rest(right, labels, 11)
    assert np.flatnonzero(p < LEVEL).tolist() == [3]
    assert p[10] == 1  # a class without examples


def test_nothing_is_worse_where_all_is_right() -> None:
    labels = np.repeat(np.arange(3), 5)
    assert worse_than_the_rest(np.ones(15, bool), labels, 3).tolist() == [1, 1, 1]
