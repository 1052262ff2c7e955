"""Forgotten examples, and those that they support: before unlearning, after it, and retrained.

found = read_before_after(study, audit, "matching")
found.before.margins, found.unlearned.right, found.oracle.right

Test examples that the forget set supports most, such as the questions about a fact whose
statements are forgotten, tell whether models still answer: `read_before_after(…, "test")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.outputs import (
    margins_of,
    read_test_outputs,
    read_train_outputs,
    right_of,
)
from engine.applications.unlearning.settings import UNCHANGED
from engine.build.retraining import FIRST_ORACLE
from engine.store import layout
from engine.store.layout import TRAK, Split
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

SUPPORTED = 12
"""The most test examples that are shown with an audit."""
LEAST_SHARE = 0.1
"""Of the support of the most supported one; less is not told from noise."""


@dataclass(frozen=True)
class Answers:
    """What N models make of k examples.

    Attributes:
        margins: Or what else the task's first output is, float64 `[N, k]`. Of a margin or the
            log-odds of tokens, the probability is 1 / (1 + exp(−margin)).
        right: Whether the answer is right, bool `[N, k]`; None without outcomes.
    """

    margins: np.ndarray
    right: np.ndarray | None

    @property
    def share_right(self) -> np.ndarray:
        """Share of the models that answer right, float64 `[k]`; with outcomes alone."""
        assert self.right is not None
        found: np.ndarray = self.right.mean(axis=0)
        return found


@dataclass(frozen=True)
class BeforeAfter:
    """What the models of an audit make of some examples.

    Attributes:
        rows: Training or test rows, int64 `[k]`.
        before: Of the originals.
        unlearned: Of the originals after unlearning.
        oracle: Of the oracles.
    """

    rows: np.ndarray
    before: Answers
    unlearned: Answers
    oracle: Answers


def before_after_files(
    study: StudyReader, audit: Audit, method: str
) -> tuple[list[Path], list[Path], list[Path]]:
    """The files of an audit's models: the originals, the unlearned ones, and the oracles.

    Raises:
        KeyError: The audit does not include this method.
    """
    root, algorithm, numbers = study.root, audit.algorithm, range(audit.models)
    before, unlearned = (
        [
            layout.unlearned_file(root, algorithm, audit.of(name).fingerprint, seed)
            for seed in numbers
        ]
        for name in (UNCHANGED, method)
    )
    oracles = [
        layout.retrained_file(root, algorithm, audit.fingerprint, FIRST_ORACLE + number)
        for number in numbers
    ]
    return before, unlearned, oracles


def read_before_after(
    study: StudyReader, audit: Audit, method: str, split: Split = "train"
) -> BeforeAfter:
    """Read what an audit's models make of the forgotten examples, or of the test examples that
    these support most.

    Raises:
        KeyError: The audit does not include this method.
        StoreError: The models' outputs are missing or broken.
    """
    train = split == "train"
    rows = np.array(audit.forget, np.int64) if train else supported(study, audit)
    read = read_train_outputs if train else read_test_outputs
    found = []
    for files in before_after_files(study, audit, method):
        outputs = read(study, files, rows)
        found.append(Answers(margins_of(study, outputs), right_of(study, outputs)))
    return BeforeAfter(rows, *found)


def supported(study: StudyReader, audit: Audit) -> np.ndarray:
    """Test rows that the forget set supports most by TRAK, the most first.

    At most `SUPPORTED`, with at least `LEAST_SHARE` of the first one's support.
    """
    scores = read_score_matrix(study, audit.algorithm, TRAK)
    total = scores.sums(np.array(audit.forget, np.int64))
    order = np.argsort(-total, kind="stable")[:SUPPORTED]
    least = max(0.0, LEAST_SHARE * float(total.max()))
    found: np.ndarray = order[total[order] > least].astype(np.int64)
    return found


def probability(margin: np.ndarray) -> np.ndarray:
    """Mean probability of the label over models, from margins `[N, k]`: `[k]`."""
    mean: np.ndarray = (1 / (1 + np.exp(-margin.clip(-50, 50)))).mean(axis=0)
    return mean
