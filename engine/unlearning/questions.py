"""What is to be forgotten, and which examples the rest is learnt, chosen and judged on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engine import store
from engine.layout import Split
from engine.retraining import Removal, removal_of
from engine.study import Study

MOST_LEARNT = 1000
"""Retain examples that methods learn from."""
MOST_AUDITED = 1000
"""Retain examples that are judged on."""
MOST_CHECKED = 500
"""Retain examples that choose hyper-parameters."""


@dataclass(frozen=True)
class Rows:
    """Training rows of one question, each int64 and ascending.

    Attributes:
        forget: To be forgotten.
        learnt: Retain examples that methods learn from.
        audited: Retain examples that the audit judges, drawn without regard to `learnt`.
        validation: As many random others as are to be forgotten: forgetting these instead is what
            hyper-parameters are chosen by.
        checked: Retain examples that choose with them. Neither they nor `validation` are audited.
    """

    forget: np.ndarray
    learnt: np.ndarray
    audited: np.ndarray
    validation: np.ndarray
    checked: np.ndarray

    @property
    def all(self) -> np.ndarray:
        """All of these rows, ascending."""
        return np.unique(np.concatenate(list(vars(self).values())))


def forget_set(study: Study, examples: Iterable[int | str]) -> Removal:
    """Rows or ids of training examples to forget. Raises as `engine.retraining.removal_of`.

    An example named twice is forgotten once.
    """
    return removal_of(study, study.training_rows(examples).tolist())


@lru_cache(maxsize=16)
def rows_of(study: Study, forget: Removal) -> Rows:
    """The rows of a question, always the same ones. Shared between callers: never change them."""
    n_train = study.dataset.n_train
    seed = int(store.fingerprint("unlearning rows", study.spec.seed, list(forget))[:15], 16)
    retain = np.setdiff1d(np.arange(n_train), forget)
    first, second = (
        retain[np.argsort(np.random.PCG64([seed, purpose]).random_raw(len(retain)), kind="stable")]
        for purpose in (0, 1)
    )
    labels = study.table("train")["label"].to_numpy()
    validation = _keeping_classes(first, labels, min(len(forget), len(retain) // 4))
    left = first[~np.isin(first, validation)]
    checked = left[: min(MOST_CHECKED, len(left) // 4)]
    rest = np.setdiff1d(left, checked)
    learnt = left[len(checked) :][:MOST_LEARNT]
    audited = second[np.isin(second, rest)][:MOST_AUDITED]
    parts = (np.array(forget, np.int64), learnt, audited, validation, checked)
    return Rows(*(np.sort(part) for part in parts))


def _keeping_classes(order: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows of an order that leave every class one of its examples there."""
    names, numbers = np.unique(labels[order], return_inverse=True)
    left = np.bincount(numbers, minlength=len(names))
    taken: list[int] = []
    for row, number in zip(order, numbers, strict=True):
        if len(taken) == count:
            break
        if left[number] > 1:
            left[number] -= 1
            taken.append(int(row))
    return np.array(taken, np.int64)


def labels_of(study: Study, rows: np.ndarray | None = None) -> np.ndarray:
    """Class numbers of training rows, or of all test examples for None: int64."""
    split: Split = "test" if rows is None else "train"
    place = {name: number for number, name in enumerate(study.dataset.classes)}
    numbers = study.table(split)["label"].map(place).to_numpy(dtype=np.int64)
    return numbers if rows is None else numbers[rows]
