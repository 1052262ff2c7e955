"""What models say of the forgotten examples: as they were, unlearned, and retrained without them.

found = forgotten(study, audit, "matching")
found.before, found.unlearned, found.oracle
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import store
from engine.applications.unlearning.audit import NOTHING, Audit
from engine.applications.unlearning.requests import labels_of, rows_of
from engine.attribution.softmax import margins
from engine.store import layout
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Forgotten:
    """Margins of the forgotten examples by model, float64 `[N, k]`; the label's probability is
    1 / (1 + exp(−margin)).

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        before: Of the originals.
        unlearned: Of the originals after they unlearned.
        oracle: Of models that never saw the forgotten examples.
    """

    rows: np.ndarray
    before: np.ndarray
    unlearned: np.ndarray
    oracle: np.ndarray


def forgotten(study: StudyReader, audited: Audit, method: str) -> Forgotten:
    """Read what an audit's models said.

    Raises:
        KeyError: The audit is not of this method. StoreError: What they said is gone or broken.
    """
    rows = np.array(audited.forget, np.int64)
    places = np.searchsorted(rows_of(study, tuple(audited.forget)).all, rows)
    labels, numbers = labels_of(study, rows), range(audited.models)
    algorithm = audited.algorithm

    def said(fingerprint: str) -> np.ndarray:
        files = [
            layout.unlearned_file(study.root, algorithm, fingerprint, seed) for seed in numbers
        ]
        logits = [store.read_tensors(file, fingerprint)["train"][places] for file in files]
        return margins(np.stack(logits), labels)

    oracles = [
        layout.oracle_file(study.root, algorithm, audited.fingerprint, number) for number in numbers
    ]
    logits = [store.read_tensors(file, audited.fingerprint)["train"][places] for file in oracles]
    return Forgotten(
        rows=rows,
        before=said(audited.of(NOTHING).fingerprint),
        unlearned=said(audited.of(method).fingerprint),
        oracle=margins(np.stack(logits), labels),
    )


def probability(margin: np.ndarray) -> np.ndarray:
    """Mean probability of the label over models, of margins `[N, k]`: `[k]`."""
    mean: np.ndarray = (1 / (1 + np.exp(-margin.clip(-50, 50)))).mean(axis=0)
    return mean
