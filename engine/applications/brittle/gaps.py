"""How far the right answer of each test example leads the best wrong one, whatever answers are.

For classes it is the gap of two logits. For pairs it is how far the right picture or caption leads
what is retrieved instead, in cosines, while scores are about log-odds: such gaps are put into the
unit of the output by how much the two change together over the checkpoints.
"""

from __future__ import annotations

import numpy as np

from engine import store
from engine.attribution.ensemble import checkpoint_mean
from engine.store import layout
from engine.study.models import read_class_numbers
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
    own, mean = own_answers(study, outcomes), _mean_record(study, algorithm, outcomes)
    together, rivals = outcomes.answers(mean), outcomes.rivals(mean, own)
    gaps = np.empty((study.checkpoints(algorithm), len(own)))
    agreeing, outputs = np.empty(gaps.shape, bool), np.zeros(gaps.shape)
    for checkpoint in range(len(gaps)):
        path = layout.outputs_file(study.root, algorithm, checkpoint, "test")
        kept = store.read_tensors(path)
        gaps[checkpoint] = outcomes.gaps(kept[outcomes.record], own, rivals)
        agreeing[checkpoint] = outcomes.answers(kept[outcomes.record]) == together
        if not outcomes.like_output:
            outputs[checkpoint] = kept["output"]
    slope = 1.0 if outcomes.like_output else change_together(gaps, outputs)
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
    mean = _mean_record(study, algorithm, outcomes)
    return outcomes.rivals(mean, own_answers(study, outcomes))


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


def _mean_record(study: StudyReader, algorithm: str, outcomes: Outcomes) -> np.ndarray:
    files = (
        layout.outputs_file(study.root, algorithm, checkpoint, "test")
        for checkpoint in range(study.checkpoints(algorithm))
    )
    return checkpoint_mean(store.read_tensors(file)[outcomes.record] for file in files)
