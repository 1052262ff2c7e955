"""Training examples that the models of one algorithm learned and those of another did not.

Directions tell what attributions of many examples have in common. Statements of single facts have
nothing in common, such as corrections that only one of two models was trained on; but the models
that saw them predict them better. An example is told by Welch's t-test over checkpoints, with the
false discovery rate over all training examples held at `RATE` (Benjamini & Hochberg 1995).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import store
from engine.store import layout
from engine.study.reader import StudyReader

RATE = 0.05
"""False discovery rate."""


@dataclass(frozen=True)
class Learned:
    """Outputs of two algorithms on the training examples.

    Attributes:
        a, b: Means over the checkpoints of either, float64 `[n_train]`.
        p: Adjusted p-values of their difference, float64 `[n_train]`; 1 where an algorithm has one
            checkpoint.
    """

    a: np.ndarray
    b: np.ndarray
    p: np.ndarray

    def by(self, side: str) -> np.ndarray:
        """Rows that this side (`a` or `b`) learned and the other did not, int64; the largest
        difference first."""
        more = self.a - self.b if side == "a" else self.b - self.a
        order = np.argsort(-more, kind="stable")
        found: np.ndarray = order[(self.p[order] < RATE) & (more[order] > 0)].astype(np.int64)
        return found


def learned(study: StudyReader, a: str, b: str) -> Learned:
    """What the checkpoints of two algorithms learned of the training examples.

    Raises:
        StoreError: Outputs are missing or broken.
    """
    return compare_outputs(*(_outputs(study, algorithm) for algorithm in (a, b)))


def compare_outputs(a: np.ndarray, b: np.ndarray) -> Learned:
    """The same from outputs `[checkpoints, n_train]`."""
    from scipy.stats import false_discovery_control, ttest_ind

    p = np.ones(a.shape[1])
    if min(len(a), len(b)) > 1:
        with np.errstate(invalid="ignore", divide="ignore"):
            p = np.asarray(ttest_ind(a, b, axis=0, equal_var=False).pvalue)
        p = false_discovery_control(np.nan_to_num(p, nan=1.0))
    return Learned(a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64), p)


def _outputs(study: StudyReader, algorithm: str) -> np.ndarray:
    """The task's output on every training example, float64 `[checkpoints, n_train]`."""
    files = [
        layout.outputs_file(study.root, algorithm, checkpoint, "train")
        for checkpoint in range(study.checkpoints(algorithm))
    ]
    return np.stack([np.asarray(store.read_tensors(file)["output"], np.float64) for file in files])
