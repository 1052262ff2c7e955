"""Predicted effects of removing training examples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.attribution.evaluation.effects import Units
from engine.attribution.evaluation.quality import Measured
from engine.attribution.scores.matrix import sums_of_squares
from engine.study.capabilities import has
from engine.study.groups import emptied_groups, group_members, resolve_group
from engine.study.measured_quality import read_predicted_and_actual
from engine.study.methods import read_quality
from engine.study.models import has_predictions, read_logit_gaps, read_predictions
from engine.study.names import resolve_algorithm, resolve_method, resolve_training_rows
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix


def predict_removal(
    study: StudyReader,
    test: int,
    scores: np.ndarray,
    algorithm: str | None = None,
    method: str | None = None,
) -> Measured | None:
    """Predict the mean change of a test example's margin without some training examples.

    Args:
        scores: Scores of the removed examples for this test example.

    Returns:
        The change with its 95 % interval (`engine.attribution.evaluation.effects`); None if the
        scores are not calibrated.
    """
    from engine.attribution.evaluation.effects import removal

    units = read_units(study, algorithm, method)
    return None if units is None else removal(scores, units, test)


def read_units(
    study: StudyReader, algorithm: str | None = None, method: str | None = None
) -> Units | None:
    """What turns the method's scores into changes of the margin; None if it is not calibrated."""
    from engine.attribution.evaluation.effects import Units

    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    quality = read_quality(study, algorithm)
    if quality is None or method not in quality.methods:
        return None
    measured = quality.methods[method]
    if measured.units is None or measured.effects is None:
        return None
    mean_square = read_predicted_and_actual(study, algorithm, method)["mean_square"]
    return Units(
        measured.units.slope,
        measured.effects,
        mean_square,
        study.dataset.n_train,
        quality.alpha,
    )


def predict_counterfactual(
    study: StudyReader,
    removed: Iterable[int | str],
    algorithm: str | None = None,
    method: str | None = None,
    by: str | None = None,
) -> Counterfactual:
    """Predict the mean effect of removing training examples on every test prediction.

    Args:
        removed: Rows or ids of training examples, in any order.
        by: Column whose groups the effect is averaged over (`engine.study.groups`); None: the
            classes.

    Raises:
        UnknownName: An example or the column does not exist.
        DataloupeError: None or all are removed.
        StoreError: There are no scores yet.
    """
    from engine.attribution.evaluation.counterfactual import Counterfactual
    from engine.attribution.evaluation.effects import changes

    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    rows = resolve_training_rows(study, removed)
    scores = read_score_matrix(study, algorithm, method)
    totals = scores.sums(rows)
    members = group_members(study, "test", None if by is None else resolve_group(study, by))
    units = read_units(study, algorithm, method)
    low = high = None
    if units is None:
        change = -totals
        means = {name: float(change[mine].mean()) for name, mine in members.items()}
        by_group = {name: Measured(mean, mean, mean) for name, mean in means.items()}
    else:
        found = changes(totals, sums_of_squares(scores, rows), len(rows), units, slice(None))
        change, low, high = found.change, found.change - found.reach, found.change + found.reach
        by_group = {name: found.mean(mine) for name, mine in members.items()}
    before = gap = None
    if has_predictions(study, algorithm):
        before = read_predictions(study, "test", algorithm)["output"].to_numpy(np.float64)
        if has(study, "outcomes") and has(study, "classes"):
            gap = read_logit_gaps(study, algorithm)
    return Counterfactual(
        algorithm=algorithm,
        method=method,
        removed=rows,
        calibrated=units is not None,
        change=change,
        low=low,
        high=high,
        before=before,
        by_group=by_group,
        emptied=emptied_groups(study, rows),
        output=study.dataset.output,
        logit_gap=gap,
    )
