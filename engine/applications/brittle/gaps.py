"""How far the right answer of each test example leads the best wrong one, whatever answers are.

For classes it is the gap of two logits. For pairs it is how far the right picture or caption leads
what is retrieved instead, in cosines, while scores are about log-odds: such gaps are put into the
unit of the output by how much the two change together over the checkpoints.
"""

from __future__ import annotations

import numpy as np

from engine.attribution.ensemble import checkpoint_mean
from engine.study.models import read_class_numbers, record_blocks
from engine.study.reader import StudyReader
from engine.tasks.outcomes import Outcomes, outcomes_named


def logit_gaps(study: StudyReader, algorithm: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Each checkpoint's part in the logit gap of the test predictions.

    Returns:
        How far the right answer leads the best wrong one of the mean record: float64
        `[checkpoints, n_test]`, with the logit gap as its mean. Whether the checkpoint itself
        answers as the mean record does: bool `[checkpoints, n_test]`. And whether the gaps are in
        the unit of the output.
    """
    outcomes = outcomes_of(study)
    own = own_answers(study, outcomes)
    gaps = np.empty((study.checkpoints(algorithm), len(own)))
    agreeing = np.empty(gaps.shape, bool)
    for rows, each in record_blocks(study, "test", algorithm, outcomes.record):
        mean = checkpoint_mean(each)
        together, rivals = outcomes.answers(mean), outcomes.rivals(mean, own[rows])
        for checkpoint, record in enumerate(each):
            gaps[checkpoint, rows] = outcomes.gaps(record, own[rows], rivals)
            agreeing[checkpoint, rows] = outcomes.answers(record) == together
    slope = 1.0
    if not outcomes.like_output:
        outputs = np.empty(gaps.shape)
        for rows, each in record_blocks(study, "test", algorithm, "output"):
            outputs[:, rows] = each
        slope = change_together(gaps, outputs)
    known = bool(slope > 0)
    return gaps / slope if known else gaps, agreeing, known


def change_together(gaps: np.ndarray, outputs: np.ndarray) -> float:
    """Change of gaps by a change of the output, over the checkpoints of each example.

    Args:
        gaps, outputs: `[checkpoints, n]`.

    Returns:
        The slope of least squares, one for all examples; NaN for a single checkpoint.
    """
    if len(gaps) < 2:
        return np.nan
    from_mean = outputs - outputs.mean(axis=0)
    return float((from_mean * gaps).sum() / np.square(from_mean).sum())


def best_wrong_answers(study: StudyReader, algorithm: str) -> np.ndarray:
    """The wrong answer that the mean record is closest to: int32 `[n_test]`."""
    outcomes = outcomes_of(study)
    own = own_answers(study, outcomes)
    found = np.empty(len(own), np.int32)
    for rows, each in record_blocks(study, "test", algorithm, outcomes.record):
        found[rows] = outcomes.rivals(checkpoint_mean(each), own[rows])
    return found


def outcomes_of(study: StudyReader) -> Outcomes:
    """The outcomes of a study's task, which has some."""
    found = outcomes_named(study.dataset.outcomes)
    assert found is not None  # which `supports.find` requires
    return found


def own_answers(study: StudyReader, outcomes: Outcomes) -> np.ndarray:
    """The right answer of each test example: int64 `[n_test]`."""
    if outcomes.labeled:
        return read_class_numbers(study, "test")
    return np.zeros(study.dataset.n_test, np.int64)
