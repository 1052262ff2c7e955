"""Groups of examples: the classes, or none where labels are no classes.

Measurements are summed by group, and no group is ever removed whole from the training data.
"""

from __future__ import annotations

import numpy as np

from engine.store.layout import Split
from engine.study.examples import read_columns
from engine.study.reader import StudyReader


def read_groups(study: StudyReader, split: Split) -> np.ndarray | None:
    """Name of each example's group, `[n]` of `str`; None if the study has no groups."""
    if study.dataset.labels != "class":
        return None
    found: np.ndarray = read_columns(study, split, ["label"])["label"].to_pandas().to_numpy(object)
    return found


def group_members(study: StudyReader, split: Split) -> dict[str, np.ndarray]:
    """Name of each group that occurs → whether each example is in it, bool `[n]`; sorted."""
    groups = read_groups(study, split)
    if groups is None:
        return {}
    return {str(name): groups == name for name in sorted(set(groups))}


def emptied_groups(study: StudyReader, removed: np.ndarray) -> list[str]:
    """Groups that have no training example left without the removed rows, sorted."""
    groups = read_groups(study, "train")
    if groups is None:
        return []
    return sorted({str(name) for name in set(groups) - set(np.delete(groups, removed))})


def read_group_numbers(study: StudyReader, split: Split) -> np.ndarray:
    """Number of each example's group, int64 `[n]`; without groups all are in one."""
    groups = read_groups(study, split)
    if groups is None:
        return np.zeros(study.dataset.rows(split), np.int64)
    found: np.ndarray = np.unique(groups, return_inverse=True)[1]
    return found
