"""The influences on one prediction, as pages show them: from stored scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.attribution.evaluation.quality import Measured
from engine.study.counterfactuals import predict_removal, read_units
from engine.study.rankings import find_influences, influences, read_totals
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Influences:
    """The strongest influences on one prediction, strongest first.

    Attributes:
        support, oppose: Training rows.
        support_scores, oppose_scores: Their scores.
        support_total, oppose_total: Sums of the scores of each sign over all training examples.
        support_amounts, oppose_amounts: Their influences, in the unit of the output; None while
            scores are uncalibrated.
        without_support, without_oppose: Predicted change of the output when all of these are
            removed.
    """

    support: np.ndarray
    support_scores: np.ndarray
    oppose: np.ndarray
    oppose_scores: np.ndarray
    support_total: float
    oppose_total: float
    support_amounts: np.ndarray | None = None
    oppose_amounts: np.ndarray | None = None
    without_support: Measured | None = None
    without_oppose: Measured | None = None


def stored_influences(
    study: StudyReader, row: int, k: int, algorithm: str, method: str
) -> Influences:
    """The k strongest influences of each sign on a test example, from stored scores."""
    totals = read_totals(study, algorithm, method)
    found = find_influences(study, row, k, algorithm, method)
    units = read_units(study, algorithm, method)
    return Influences(
        *found,
        support_total=float(totals["test_support"][row]),
        oppose_total=float(totals["test_oppose"][row]),
        support_amounts=None if units is None else influences(units, found[1], row),
        oppose_amounts=None if units is None else influences(units, found[3], row),
        without_support=predict_removal(study, row, found[1], algorithm, method),
        without_oppose=predict_removal(study, row, found[3], algorithm, method),
    )
