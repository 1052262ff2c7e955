"""Which other examples' unlearning chooses hyper-parameters: those most like the ones to forget.

How far a predicted change comes true, and how fast it is learnt, depends on what is removed: fifty
examples that pull one way are another question than fifty random ones. So each example to forget
has its likest other stand for it: the one whose scores with the test examples point most nearly
where its own do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.applications.unlearning.requests import labels_of, rows_of
from engine.build.retraining import Removal
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.layout import TRAK
from engine.store.rows import evenly_spread
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

MOST_TESTS = 500
"""Test examples by whose scores likeness is told."""
_TOGETHER = 256
"""Examples to forget whose likeness to all others is held in memory at once."""


_SETS: FileCache[Removal] = FileCache(most=16)


def validation_set(study: StudyReader, algorithm: str, asked: Removal) -> Removal:
    """As many others as are to be forgotten, ascending, or a quarter of all where those are more.

    None is learnt from, audited or checked, and every class keeps one of its examples.
    """
    scores = layout.weighting_file(study.root, algorithm)  # written last of the scores
    key = study.dataset.fingerprint, study.spec.seed, asked
    return _SETS.get(scores, lambda: _validation_set(study, algorithm, asked), key)


def _validation_set(study: StudyReader, algorithm: str, asked: Removal) -> Removal:
    others = rows_of(study, asked).others
    labels = labels_of(study, np.arange(study.dataset.n_train))
    left = np.bincount(labels)
    count = min(len(asked), (study.dataset.n_train - len(asked)) // 4)
    taken: list[int] = []
    free = np.ones(len(others), bool)
    for likeness in _likenesses(study, algorithm, np.array(asked, np.int64), others):
        free &= left[labels[others]] > 1
        if len(taken) == count or not free.any():
            break
        place = int(np.where(free, likeness, -np.inf).argmax())
        free[place] = False
        left[labels[others[place]]] -= 1
        taken.append(int(others[place]))
    return tuple(sorted(taken))


def _likenesses(
    study: StudyReader, algorithm: str, forget: np.ndarray, others: np.ndarray
) -> Iterator[np.ndarray]:
    """For each example to forget, its cosine with each of the others."""
    tests = evenly_spread(study.dataset.n_test, MOST_TESTS)
    scores = read_score_matrix(study, algorithm, TRAK).rows(tests)
    scores /= np.linalg.norm(scores, axis=0).clip(np.finfo(np.float32).tiny)
    theirs = scores[:, others]
    for first in range(0, len(forget), _TOGETHER):
        yield from scores[:, forget[first : first + _TOGETHER]].T @ theirs
