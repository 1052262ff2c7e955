"""The training examples of an audit: those to forget, and the retain examples for each purpose.

Methods learn from some retain examples, hyper-parameters are chosen on others, and models are
judged on a third part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engine import store
from engine.build.retraining import Removal, removal_of
from engine.store.layout import Split
from engine.study.models import read_class_numbers
from engine.study.reader import StudyReader
from engine.tasks.outcomes import (
    Matched,
    Outcomes,
    audited_records,
    matched_named,
    outcomes_named,
)

MOST_LEARNED = 1000
"""Retain examples that methods learn from."""
MOST_AUDITED = 1000
"""Retain examples that models are judged on."""
MOST_TUNING = 500
"""Retain examples that hyper-parameters are chosen on."""


@dataclass(frozen=True)
class Rows:
    """Training rows of one forget set, each int64 and ascending.

    Attributes:
        forget: Examples to forget.
        learned: Retain examples that methods learn from.
        audited: Retain examples that models are judged on. Some may be in `learned`: both are
            drawn from the same examples, independently.
        tuning: Retain examples that hyper-parameters are chosen on. None is in `audited`.
        others: All other retain examples. The validation set is chosen among them
            (`engine.applications.unlearning.validation`).
    """

    forget: np.ndarray
    learned: np.ndarray
    audited: np.ndarray
    tuning: np.ndarray
    others: np.ndarray

    @property
    def all(self) -> np.ndarray:
        """Rows of which outputs are kept of every model, ascending."""
        return np.unique(np.concatenate([self.forget, self.learned, self.audited, self.tuning]))


def forget_set(study: StudyReader, examples: Iterable[int | str]) -> Removal:
    """Rows or ids of training examples to forget. Raises as `engine.build.retraining.removal_of`.

    An example named twice is forgotten once.
    """
    return removal_of(study, examples)


def rows_of(study: StudyReader, forget: Removal) -> Rows:
    """The rows of a request, always the same. Shared between callers, so never change them."""
    return _rows_of(study.dataset.n_train, study.spec.seed, forget)


@lru_cache(maxsize=16)
def _rows_of(n_train: int, study_seed: int, forget: Removal) -> Rows:
    seed = int(store.fingerprint_of("unlearning rows", study_seed, list(forget))[:15], 16)
    retain = np.setdiff1d(np.arange(n_train), forget)
    first, second = (
        retain[np.argsort(np.random.PCG64([seed, purpose]).random_raw(len(retain)), kind="stable")]
        for purpose in (0, 1)
    )
    eighth = len(retain) // 8
    tuning = first[: min(MOST_TUNING, eighth)]
    middle = first[len(tuning) : len(first) - 3 * eighth]
    learned = middle[:MOST_LEARNED]
    audited = second[np.isin(second, middle)][:MOST_AUDITED]
    others = first[~np.isin(first, np.concatenate([tuning, learned, audited]))]
    parts = (np.array(forget, np.int64), learned, audited, tuning, others)
    return Rows(*(np.sort(part) for part in parts))


def outcomes_of(study: StudyReader) -> Outcomes | None:
    """The outcomes of a study; None without right and wrong."""
    return outcomes_named(study.dataset.outcomes)


def matched_of(study: StudyReader) -> Matched:
    """What unlearning matches in a study whose models can unlearn (`checks.check_task`)."""
    found = matched_named(study.dataset.outcomes, study.dataset.output)
    assert found is not None
    return found


def audited_of(study: StudyReader) -> tuple[str, ...]:
    """The arrays that audits keep of each model."""
    return audited_records(study.dataset.outcomes, study.dataset.output)


def own_of(study: StudyReader, rows: np.ndarray | None = None) -> np.ndarray:
    """The right answers of training rows, or of all test examples for None: int64. Class numbers,
    where examples have a class, else 0 (`engine.tasks.outcomes.Outcomes`)."""
    split: Split = "test" if rows is None else "train"
    outcomes = outcomes_of(study)
    if outcomes is None or not outcomes.labeled:
        return np.zeros(study.dataset.rows(split) if rows is None else len(rows), np.int64)
    numbers = read_class_numbers(study, split)
    return numbers if rows is None else numbers[rows]
