"""Margins of the forgotten examples: before unlearning, after it, and retrained without them.

found = read_before_after(study, audit, "matching")
found.before, found.unlearned, found.oracle
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.logits import read_train_logits
from engine.applications.unlearning.rows import labels_of
from engine.applications.unlearning.settings import UNCHANGED
from engine.attribution.softmax import margins
from engine.build.retraining import FIRST_ORACLE
from engine.store import layout
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class BeforeAfter:
    """Margins of the forgotten examples by model, float64 `[N, k]`.

    The label's probability is 1 / (1 + exp(−margin)).

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        before: Margins of the originals.
        unlearned: Margins of the originals after unlearning.
        oracle: Margins of the oracles.
    """

    rows: np.ndarray
    before: np.ndarray
    unlearned: np.ndarray
    oracle: np.ndarray


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


def read_before_after(study: StudyReader, audit: Audit, method: str) -> BeforeAfter:
    """Read the margins of an audit's models.

    Raises:
        KeyError: The audit does not include this method.
        StoreError: The models' outputs are missing or broken.
    """
    rows = np.array(audit.forget, np.int64)
    labels = labels_of(study, rows)
    before, unlearned, oracle = (
        margins(read_train_logits(files, rows), labels)
        for files in before_after_files(study, audit, method)
    )
    return BeforeAfter(rows, before, unlearned, oracle)


def probability(margin: np.ndarray) -> np.ndarray:
    """Mean probability of the label over models, from margins `[N, k]`: `[k]`."""
    mean: np.ndarray = (1 / (1 + np.exp(-margin.clip(-50, 50)))).mean(axis=0)
    return mean
