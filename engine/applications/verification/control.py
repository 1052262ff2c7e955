"""The control of a verification: removing random training examples of the same groups."""

from __future__ import annotations

import numpy as np

from engine.build.retraining import Removal
from engine.store.errors import DataloupeError
from engine.store.text import counted
from engine.study.groups import read_group_numbers, read_groups
from engine.study.reader import StudyReader


def control_of(study: StudyReader, removed: Removal) -> Removal:
    """The same number of other training examples of each group: random, but always the same ones.

    Raises:
        DataloupeError: A group, such as a class, has too few others.
    """
    groups = read_group_numbers(study, "train")
    names = read_groups(study, "train")
    rows = np.array(removed)
    generator = np.random.Generator(np.random.PCG64([study.spec.seed, *removed]))
    drawn: list[int] = []
    for group in sorted(set(groups[rows])):
        number = int((groups[rows] == group).sum())
        others = np.setdiff1d(np.flatnonzero(groups == group), rows)
        if len(others) < number + 1:
            where = "" if names is None else f" of class {names[groups == group][0]!r}"
            raise DataloupeError(
                f"A control removes {counted(number, 'other training example')}{where} and keeps "
                f"at least one, but there are {len(others):,}: verify without a control."
            )
        # Random keys, not numpy's choice, whose draws may change from version to version.
        keys = generator.bit_generator.random_raw(len(others))
        drawn += others[np.argsort(keys, kind="stable")[:number]].tolist()
    return tuple(sorted(drawn))
