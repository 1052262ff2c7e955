"""Data support of one prediction by its exact scores, where replay computed them.

The estimate (`engine.applications.brittle.supports`) ranks by scores and turns their sums into
changes by a fitted slope. Here both come from replay: the strongest examples of the mean over the
models, and changes in units of the output. Its error is the spread of the models: that of their
logit gaps, and that of the changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.applications.brittle.supports import (
    REQUIRED_AGREEMENT,
    Supports,
    beyond,
    keep_one_of_every_class,
)
from engine.applications.replay.answer import kept_answer
from engine.applications.verification.record import Verification
from engine.applications.verification.verifying import Request, request_of
from engine.store.errors import DataloupeError
from engine.store.text import counted
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class ExactSupport:
    """The removal set of one prediction, by replay.

    Attributes:
        test: Its row.
        models: Number of replayed models.
        rows: Training rows in the order of removal, at most K.
        scores: Their exact scores, mean over the models, `[rows]`.
        after: Predicted logit gap without the first 1, 2, ... of them, `[rows]`.
        flip_probability: That retrained models together predict another class, `[rows]`.
        size: The data support; 0 if no removal of at most K is predicted to flip.
    """

    test: int
    models: int
    rows: np.ndarray
    scores: np.ndarray
    after: np.ndarray
    flip_probability: np.ndarray
    size: int

    @property
    def removal(self) -> np.ndarray:
        """Training rows to remove, strongest first; none if no flip is predicted."""
        return self.rows[: self.size]


def exact_support(study: StudyReader, supports: Supports, test: int) -> ExactSupport | None:
    """Data support of a prediction by its kept exact scores; None if there are none.

    Args:
        supports: Of the same algorithm: its logit gaps, largest removal and least probability.
    """
    answer = kept_answer(study, test, supports.algorithm)
    if answer is None:
        return None
    mean, right = answer.mean, bool(supports.right[test])
    rows = answer.strongest(supports.at_most)[0 if right else 1].astype(np.int32)[None]
    keep_one_of_every_class(study, rows, mean[rows])
    rows = rows[rows >= 0]
    changes = -np.cumsum(answer.scores[:, rows], axis=1)
    after = supports.logit_gap[test] + changes.mean(axis=0)
    models = len(changes)
    # Each spread is unknown for a single model, and then treated as 0.
    of_changes = changes.var(axis=0, ddof=1) / models if models > 1 else np.zeros(len(rows))
    of_gaps = np.square(supports.logit_gap_deviation[test]) / supports.checkpoints
    freedom = np.full(len(rows), float(min(models, supports.checkpoints) - 1))
    likely = beyond(np.array(right), after, np.sqrt(of_changes + of_gaps), freedom)
    agreed = supports.agreement[test] >= REQUIRED_AGREEMENT
    flips = np.flatnonzero(agreed & (likely >= supports.probability))
    size = int(flips[0]) + 1 if len(flips) else 0
    return ExactSupport(test, models, rows, mean[rows], after, likely, size)


def exact_requests(study: StudyReader, supports: Supports, tests: Iterable[int]) -> list[Request]:
    """The removal sets found by replay, to be verified.

    Raises:
        DataloupeError: A prediction has no exact scores, or they do not predict a flip.
    """
    found = []
    for test in tests:
        support = exact_support(study, supports, test)
        if support is None:
            raise DataloupeError(
                f"Test example {test} has no exact scores yet. Compute them first: `dataloupe "
                f"explain {study.root} --test '#{test}' --exact`."
            )
        if not support.size:
            raise DataloupeError(
                f"By replay, test example {test} is not predicted to flip by removing at most "
                f"{counted(supports.at_most, 'training example')}, so there is no removal set to "
                "verify."
            )
        found.append(request_of(study, support.removal.tolist(), [test]))
    return found


def exact_proof(
    support: ExactSupport, verifications: Sequence[Verification]
) -> Verification | None:
    """The newest verification of exactly this removal set and prediction."""
    wanted = sorted(support.removal.tolist())
    for one in reversed(verifications):
        if one.removed == wanted and any(outcome.test == support.test for outcome in one.outcomes):
            return one
    return None
