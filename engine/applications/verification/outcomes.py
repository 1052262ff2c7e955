"""Outcomes of a verification, read from its models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.applications.verification.record import Outcome, share_flipped
from engine.attribution.evaluation.quality import Measured
from engine.build.retraining import NOTHING, Outputs, Removal, retrained
from engine.store.quantities import predicted_text
from engine.study.counterfactuals import predict_removal
from engine.study.examples import FILE, read_texts_of
from engine.study.models import read_mean_records, read_predictions
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix
from engine.tasks.outcomes import outcomes_named

_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Two-sided 95 % quantiles of Student's t with 1, 2, … degrees of freedom."""


def outcomes_of(
    study: StudyReader,
    algorithm: str,
    method: str | None,
    removed: Removal,
    tests: Sequence[int],
    seeds: int,
) -> list[Outcome]:
    """The effect of removing `removed` on each test example. All models must be trained."""
    if not tests:
        return []
    with_all, without = (
        [retrained(study, algorithm, removal, seed) for seed in range(seeds)]
        for removal in (NOTHING, removed)
    )
    table, before_all = study.table("test"), _before(study, algorithm)
    predicted = predicted_changes(study, algorithm, method, removed, tests)
    found = []
    files = read_texts_of(study, "test", FILE, tests)
    for test, expected, file in zip(tests, predicted, files, strict=True):
        label = str(table["label"].iloc[test])
        outputs = [[float(model.output[test]) for model in group] for group in (with_all, without)]
        answers = [_answers(study, group, test) for group in (with_all, without)]
        before = before_all[test]
        kind = outcomes_named(study.dataset.outcomes)
        flips = [share_flipped(before, group, kind) for group in answers]
        change, low, high = mean_change(np.array(outputs[1]) - np.array(outputs[0]))
        found.append(
            Outcome(
                test=int(test),
                id=str(table["id"].iloc[test]),
                label=label,
                before=before,
                predicted=expected,
                with_all=outputs[0],
                without=outputs[1],
                answers_with=answers[0],
                answers_without=answers[1],
                change=change,
                low=low,
                high=high,
                flips=flips[1],
                flips_with=flips[0],
                file=file,
            )
        )
    return found


def _before(study: StudyReader, algorithm: str) -> list[str]:
    """What the checkpoints together predict for each test example, named as answers are."""
    outcomes = outcomes_named(study.dataset.outcomes)
    if outcomes is None:
        found = read_predictions(study, "test", algorithm)["predicted"]
        return [predicted_text(one, study.dataset.predicted) for one in found]
    record = read_mean_records(study, "test", algorithm)[outcomes.record]
    return outcomes.names(outcomes.answers(record), study.dataset.classes)


def _answers(study: StudyReader, models: Sequence[Outputs], test: int) -> list[str]:
    """What each model answers for a test example, by name; empty without outcomes."""
    outcomes = outcomes_named(study.dataset.outcomes)
    found = [model.answers[test] for model in models if model.answers is not None]
    return [] if outcomes is None else outcomes.names(np.array(found), study.dataset.classes)


def predicted_changes(
    study: StudyReader, algorithm: str, method: str | None, removed: Removal, tests: Sequence[int]
) -> list[Measured | None]:
    """Predicted change of each test example's margin without `removed`, from the scores."""
    if method is None:
        return [None] * len(tests)
    candidates = np.tile(np.array(removed, np.int64), (len(tests), 1))
    scores = read_score_matrix(study, algorithm, method).pairs(
        np.array(tests, np.int64), candidates
    )
    return [
        predict_removal(study, int(test), row, algorithm, method)
        for test, row in zip(tests, scores, strict=True)
    ]


def mean_change(changes: np.ndarray) -> tuple[float, float | None, float | None]:
    """(mean, low, high) of changes `[seeds]`: a 95 % interval by Student's t, None for one seed."""
    mean, free = float(np.mean(changes)), len(changes) - 1
    if free == 0:
        return mean, None, None
    quantile = _T_95[free - 1] if free <= len(_T_95) else 1.96 * (1 + 1.25 / free)
    reach = quantile * float(np.std(changes, ddof=1)) / math.sqrt(len(changes))
    return mean, mean - reach, mean + reach
