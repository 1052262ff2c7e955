"""Training examples that the models of one algorithm learned and those of another did not.

Directions tell what attributions of many examples have in common. Statements of single facts have
nothing in common, such as corrections that only one of two models was trained on; but the models
that saw them predict them better. An example is told by Welch's t-test over checkpoints, with the
false discovery rate over all training examples held at `RATE` (Benjamini & Hochberg 1995).

What is tested is whether outputs differ by more than a floor, a share of their spread over the
training examples. Checkpoints that agree almost exactly would otherwise make a difference of
nothing significant: saturated outputs, or ties that rounding has broken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import store
from engine.store import layout
from engine.study.reader import StudyReader

RATE = 0.05
"""False discovery rate."""
FLOOR = 0.1
"""Differences of at most this many standard deviations of the outputs over the training examples
count as none."""
_ROUNDING = 1e-4
"""Of the largest output: a floor where all examples have about the same output."""


@dataclass(frozen=True)
class Learned:
    """Outputs of two algorithms on the training examples.

    Attributes:
        a, b: Means over the checkpoints of either, float64 `[n_train]`.
        p: Adjusted p-values of their difference being within the floor, float64 `[n_train]`; 1
            where an algorithm has one checkpoint.
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
    from scipy.stats import false_discovery_control, t

    means = [some.mean(axis=0, dtype=np.float64) for some in (a, b)]
    p = np.ones(a.shape[1])
    if min(len(a), len(b)) > 1:
        errors, freedom = _errors(a, b)
        beyond = np.abs(means[0] - means[1]) - _floor(a, b)
        # Without any noise, what is beyond the floor is certain, and what is not is nothing.
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * t.sf(np.where(beyond > 0, beyond / errors, 0), freedom)
        p = false_discovery_control(p)
    return Learned(means[0], means[1], p)


def _errors(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Welch's standard error of the difference of means, and its degrees of freedom, `[n_train]`
    each."""
    parts = [some.var(axis=0, ddof=1, dtype=np.float64) / len(some) for some in (a, b)]
    total = parts[0] + parts[1]
    spread = sum(part**2 / (len(some) - 1) for part, some in zip(parts, (a, b), strict=True))
    with np.errstate(invalid="ignore"):
        freedom = np.where(total > 0, total**2 / spread, 1.0)
    return np.sqrt(total), freedom


def _floor(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference that counts as none, in the unit of the outputs."""
    both = np.concatenate([a, b])
    spread = float(both.mean(axis=0, dtype=np.float64).std())
    return max(FLOOR * spread, _ROUNDING * float(np.abs(both).max()))


def _outputs(study: StudyReader, algorithm: str) -> np.ndarray:
    """The task's output on every training example, float64 `[checkpoints, n_train]`."""
    files = [
        layout.outputs_file(study.root, algorithm, checkpoint, "train")
        for checkpoint in range(study.checkpoints(algorithm))
    ]
    return np.stack([np.asarray(store.read_tensors(file)["output"], np.float64) for file in files])
