"""Which groups of training examples the influence on a prediction comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.store import layout
from engine.store.cache import read_column_names
from engine.study.groups import group_columns, group_members
from engine.study.reader import StudyReader

MOST_SCORES = 200_000
"""With more training examples, all scores of one prediction take seconds to read."""


@dataclass(frozen=True)
class GroupSums:
    """Sums of the scores of one prediction, by the values of a column of the training examples.

    Attributes:
        names: Of the groups, those with most support first.
        support, oppose: Shares of all support and of all opposition, `[groups]`; 0 where there is
            none.
        examples: Shares of the training examples, `[groups]`.
    """

    names: tuple[str, ...]
    support: np.ndarray
    oppose: np.ndarray
    examples: np.ndarray


def columns_to_sum_by(study: StudyReader) -> list[str]:
    """Columns of the training examples that can be a group."""
    known = read_column_names(layout.table_file(study.root, "train", 0))
    return [name for name in group_columns(study) if name in known]


def sums_by_group(study: StudyReader, scores: np.ndarray) -> dict[str, GroupSums]:
    """The shares of every group, by column; of columns with the same groups by the first alone.

    Args:
        scores: Of one prediction with every training example, `[n_train]`.
    """
    positive, negative = scores.clip(min=0).astype(float), (-scores).clip(min=0).astype(float)
    found: dict[str, GroupSums] = {}
    known: set[frozenset[bytes]] = set()
    for column in columns_to_sum_by(study):
        members = group_members(study, "train", column)
        same = frozenset(np.packbits(mine).tobytes() for mine in members.values())
        if same in known:  # a class by its number, and by its name
            continue
        known.add(same)
        support, oppose = (
            np.array([part[mine].sum() for mine in members.values()]) / (part.sum() or 1.0)
            for part in (positive, negative)
        )
        examples = np.array([mine.mean() for mine in members.values()])
        order = np.argsort(-support, kind="stable")
        names = tuple(list(members)[place] for place in order)
        found[column] = GroupSums(names, support[order], oppose[order], examples[order])
    return found
