"""What a removal does to the predictions that were replayed, beside what scores estimate.

for one in exact_changes(study, algorithm, rows):
    one.test, one.change.mean
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.applications.replay.answer import agreeing, kept_answers
from engine.attribution.evaluation.quality import Measured
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class ExactChange:
    """The change of one prediction's output, by replay.

    Attributes:
        test: Its row.
        change: Its mean over the models, and the least and the most of them.
        models: Number of models.
        agreeing: In how many of them the output changes in the direction of the mean.
    """

    test: int
    change: Measured
    models: int
    agreeing: int


def exact_changes(study: StudyReader, algorithm: str, removed: np.ndarray) -> list[ExactChange]:
    """What removing these training rows does to each prediction with kept exact scores.

    The strongest change comes first.
    """
    found = []
    for test, answer in kept_answers(study, algorithm):
        each = answer.changes(removed)
        change = answer.without(removed)
        found.append(ExactChange(test, change, len(each), int(agreeing(each))))
    return sorted(found, key=lambda one: -abs(one.change.mean))
