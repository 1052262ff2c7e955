"""What a training example does to all test predictions together."""

from __future__ import annotations

import numpy as np

from engine.study.measured_quality import read_badge
from engine.study.methods import has_scores
from engine.study.names import resolve_method
from engine.study.rankings import read_totals
from engine.study.reader import StudyReader


def net_influence(
    study: StudyReader, algorithm: str, method: str | None = None
) -> tuple[np.ndarray | None, str | None]:
    """(sum of each training example's influences on all test outputs `[n_train]`, the method).

    In the unit of the output if scores are calibrated; None before there are scores.
    """
    if not has_scores(study, algorithm):
        return None, None
    method = resolve_method(study, algorithm, method)
    totals, slope = (
        read_totals(study, algorithm, method),
        read_badge(study, algorithm, method).slope,
    )
    found = np.array(totals["train_support"], np.float64) + totals["train_oppose"]
    return found * (1.0 if slope is None else slope), method
