"""Training examples with their total influence on all test predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dashboard.api.examples import Predicted, predicted_fields
from dashboard.api.numbers import Number, is_a, number
from dashboard.read.studies import Examples, Weights
from engine.store.quantities import SCORE, TOTAL_INFLUENCE, Quantity
from engine.study.reader import StudyReader

SCORES = Quantity("total score", SCORE.unit, TOTAL_INFLUENCE.rounding, TOTAL_INFLUENCE.digits)
"""What a total influence is while scores are uncalibrated."""


@dataclass(frozen=True, kw_only=True)
class Weighty(Predicted):
    """A training example with its total influence on all test predictions.

    Attributes:
        total_influence: Sum of the sizes of its influences. While scores are uncalibrated, a sum of
            scores, without a unit.
        helping, hurting: The parts of it that raise and lower the model output.
        rank: Its place among all training examples, from 1 for the largest.
    """

    total_influence: Annotated[Number, is_a(TOTAL_INFLUENCE)]
    helping: Annotated[Number, is_a(TOTAL_INFLUENCE)]
    hurting: Annotated[Number, is_a(TOTAL_INFLUENCE)]
    rank: int


def total_of(
    study: StudyReader, weight: Weights, row: int, method: str, ranks: np.ndarray
) -> dict[str, Any]:
    """The fields of `Weighty` that are not those of an example."""
    of = TOTAL_INFLUENCE if weight.calibrated else SCORES

    def amount(value: float) -> Number:
        return number(of, value, study.dataset.output, method)

    return {
        "total_influence": amount(weight.total[row]),
        "helping": amount(abs(weight.support[row])),
        "hurting": amount(abs(weight.oppose[row])),
        "rank": int(ranks[row]) + 1,
    }


def ranks_of(weight: Weights) -> np.ndarray:
    """Place of each training row in the order of total influence, from 0."""
    found = np.empty(len(weight.order), np.int64)
    found[weight.order] = np.arange(len(weight.order))
    return found


def weighty(
    study: StudyReader, training: Examples, rows: np.ndarray, weight: Weights, method: str
) -> Iterator[Weighty]:
    """Training examples with their total influence, made block by block."""
    ranks = ranks_of(weight)
    for fields in predicted_fields(study, training, rows):
        yield Weighty(**fields, **total_of(study, weight, fields["row"], method, ranks))
