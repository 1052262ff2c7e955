"""The test predictions that one training example raises and lowers most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.study.counterfactuals import read_units
from engine.study.rankings import influences, read_top_of_training
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Side:
    """Test predictions, strongest first.

    Attributes:
        rows: Test rows.
        scores: Of the training example for each.
        amounts: Its influence on each, in the unit of the output; None while scores are
            uncalibrated.
    """

    rows: np.ndarray
    scores: np.ndarray
    amounts: np.ndarray | None


def strongest_of_training(
    study: StudyReader, row: int, k: int, algorithm: str, method: str
) -> tuple[Side, Side]:
    """The k test predictions that a training row supports most, and those it opposes most."""
    top, units = (
        read_top_of_training(study, row, algorithm, method),
        read_units(study, algorithm, method),
    )

    def side(sign: str) -> Side:
        rows, scores = top[f"{sign}_index"][:k], top[f"{sign}_score"][:k]
        rows, scores = rows[rows >= 0], scores[rows >= 0]
        return Side(rows, scores, None if units is None else influences(units, scores, rows))

    return side("support"), side("oppose")
