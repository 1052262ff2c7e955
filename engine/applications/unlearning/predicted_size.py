"""How much larger actual changes are than predicted ones, measured on the validation set.

Predicted changes of token log-odds have the right order and correlate well with actual ones, but
their size depends on the damping, which is chosen for the order. Models without the validation set
are trained anyway, so their changes tell the size: the slope, through 0, of the actual changes of
the validation examples on the predicted ones.
"""

from __future__ import annotations

import numpy as np

from engine.applications.unlearning.method_jobs import original_outputs
from engine.applications.unlearning.oracles import oracle_outputs
from engine.applications.unlearning.output_changes import predicted_changes
from engine.applications.unlearning.sources import Source
from engine.build.retraining import Removal
from engine.study.reader import StudyReader

LEAST, MOST = 0.5, 4.0
"""Of the factor: the validation set is small."""


def size_of_changes(
    study: StudyReader,
    algorithm: str,
    forget: Removal,
    validation: Removal,
    models: int,
    device: str,
    source: Source,
) -> float:
    """The factor on predicted changes. The first `models` oracles of the validation set, and
    outputs of as many originals (`method_jobs.unchanged_originals`), must be in the store."""
    rows = np.array(validation, np.int64)
    after = oracle_outputs(study, algorithm, forget, validation, models).of(rows).matched
    before = original_outputs(study, algorithm, forget, validation, models, device).of(rows).matched
    predicted = predicted_changes(study, forget, validation, algorithm, device, source).forget
    return slope(predicted, after.mean(axis=0) - before.mean(axis=0))


def slope(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Of actual on predicted changes, through 0, from `LEAST` to `MOST`; 1 if nothing is
    predicted."""
    squares = float(np.square(predicted, dtype=np.float64).sum())
    if squares == 0:
        return 1.0
    found = float((predicted * actual).sum(dtype=np.float64)) / squares
    return min(max(found, LEAST), MOST)
