"""The validation set: examples similar to the forget set, unlearned to choose hyper-parameters.

The accuracy of a predicted change, and how fast a model learns it, depend on the removed examples:
fifty examples with the same influence are harder to forget than fifty random ones. So each example
to forget is represented by the most similar other example: the one whose scores for the test
examples have the highest cosine with its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.applications.unlearning.rows import own_of, rows_of
from engine.build.retraining import Removal
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.layout import TRAK
from engine.store.rows import evenly_spread
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

MOST_TESTS = 500
"""Most test examples whose scores are used for similarity."""
_TOGETHER = 256
"""Number of examples to forget whose similarities are in memory at once."""


_SETS: FileCache[Removal] = FileCache(most=16)


def validation_set(study: StudyReader, algorithm: str, forget: Removal) -> Removal:
    """Other training examples, ascending: as many as the forget set has, at most a quarter of all.

    They are not used for learning, tuning or auditing, and every class keeps at least one example.
    """
    scores = layout.weighting_file(study.root, algorithm)  # written last of the scores
    key = study.dataset.fingerprint, study.spec.seed, forget
    return _SETS.get(scores, lambda: _validation_set(study, algorithm, forget), key)


def _validation_set(study: StudyReader, algorithm: str, forget: Removal) -> Removal:
    others = rows_of(study, forget).others
    labels = own_of(study, np.arange(study.dataset.n_train))
    left = np.bincount(labels)
    count = min(len(forget), (study.dataset.n_train - len(forget)) // 4)
    taken: list[int] = []
    free = np.ones(len(others), bool)
    for similarity in _similarities(study, algorithm, np.array(forget, np.int64), others):
        free &= left[labels[others]] > 1
        if len(taken) == count or not free.any():
            break
        place = int(np.where(free, similarity, -np.inf).argmax())
        free[place] = False
        left[labels[others[place]]] -= 1
        taken.append(int(others[place]))
    return tuple(sorted(taken))


def _similarities(
    study: StudyReader, algorithm: str, forget: np.ndarray, others: np.ndarray
) -> Iterator[np.ndarray]:
    """For each example to forget, its cosine with each of the others."""
    tests = evenly_spread(study.dataset.n_test, MOST_TESTS)
    scores = read_score_matrix(study, algorithm, TRAK).rows(tests)
    scores /= np.linalg.norm(scores, axis=0).clip(np.finfo(np.float32).tiny)
    theirs = scores[:, others]
    for first in range(0, len(forget), _TOGETHER):
        yield from scores[:, forget[first : first + _TOGETHER]].T @ theirs
