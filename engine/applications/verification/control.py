"""The control of a verification: removing random training examples of the same classes."""

from __future__ import annotations

import numpy as np

from engine.build.retraining import Removal
from engine.store.errors import DataloupeError
from engine.store.text import counted
from engine.study.reader import StudyReader


def control_of(study: StudyReader, removed: Removal) -> Removal:
    """The same number of other training examples of each class: random, but always the same ones.

    Raises:
        DataloupeError: A class has too few others.
    """
    labels = study.table("train")["label"].to_numpy()
    rows = np.array(removed)
    generator = np.random.Generator(np.random.PCG64([study.spec.seed, *removed]))
    drawn: list[int] = []
    for label in sorted(set(labels[rows])):
        number = int((labels[rows] == label).sum())
        others = np.setdiff1d(np.flatnonzero(labels == label), rows)
        if len(others) < number + 1:
            raise DataloupeError(
                f"A control removes {counted(number, 'other training example')} of class "
                f"{label!r} and keeps at least one, but the class has {len(others):,}: verify "
                "without a control."
            )
        # Random keys, not numpy's choice, whose draws may change from version to version.
        keys = generator.bit_generator.random_raw(len(others))
        drawn += others[np.argsort(keys, kind="stable")[:number]].tolist()
    return tuple(sorted(drawn))
