"""Estimate an average effect over models and pictures, and the difference between two algorithms.

Every model is measured on every picture, so both are crossed random effects: the change of picture
j at checkpoint k is μ + c_k + p_j + e_kj. With m checkpoints and n pictures, the variance of the
mean is σ²_c/m + σ²_p/n + σ²_e/(mn), and the mean squares estimate it without bias:

    s²_rows/m + s²_columns/n − s²_residual/(mn)

The difference of two algorithms has independent checkpoints but the same pictures. Its p-value is
that of Student's t with the degrees of freedom of Satterthwaite (1946), as in Welch's test. With
few checkpoints a bootstrap would find differences that are not there: it resamples two or three
values and takes their spread for normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.attribution.evaluation.quality import Measured

_LEAST = 1e-24


@dataclass(frozen=True)
class Estimate:
    """A mean with what is known of its error.

    Attributes:
        mean: The estimate.
        parts: Variance and degrees of freedom of each independent part of the error.
        judged: Whether every algorithm has two checkpoints or more.
    """

    mean: float
    parts: tuple[tuple[float, int], ...]
    judged: bool

    @property
    def error(self) -> float:
        """Standard error."""
        return math.sqrt(max(sum(variance for variance, _ in self.parts), _LEAST))

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom."""
        total = sum(variance for variance, _ in self.parts)
        if total <= 0:
            return float(min(degrees for _, degrees in self.parts))
        each = sum((variance / total) ** 2 / degrees for variance, degrees in self.parts)
        return 1 / each

    def interval(self) -> Measured:
        """The mean with its 95 % interval."""
        from scipy.special import stdtrit

        half_width = float(stdtrit(self.degrees, 0.975)) * self.error
        return Measured(self.mean, self.mean - half_width, self.mean + half_width)

    def p_value(self) -> float | None:
        """Two-sided, of a mean of 0; None where it is not judged."""
        from scipy.special import stdtr

        if not self.judged:
            return None
        return float(2 * stdtr(self.degrees, -abs(self.mean) / self.error))


def estimate(changes: np.ndarray) -> Estimate:
    """The mean of one algorithm's changes.

    Args:
        changes: `[checkpoints, pictures]`. With one checkpoint, the error is that of the pictures
            alone.
    """
    m, n = changes.shape
    pictures = _variance(changes.mean(axis=0)) / n
    if m == 1:
        return Estimate(float(changes.mean()), ((pictures, max(1, n - 1)),), judged=False)
    only_pictures = max(0.0, pictures - _residual_variance(changes) / (m * n))
    checkpoints = _variance(changes.mean(axis=1)) / m
    parts = ((checkpoints, m - 1), (only_pictures, max(1, n - 1)))
    return Estimate(float(changes.mean()), parts, judged=True)


def estimate_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """The mean of A's changes minus that of B's.

    Args:
        a, b: `[checkpoints, pictures]`, of the same pictures.
    """
    n = a.shape[1]
    pictures = _variance(a.mean(axis=0) - b.mean(axis=0)) / n
    parts = []
    for changes in (a, b):
        m = len(changes)
        if m > 1:
            pictures -= _residual_variance(changes) / (m * n)
            parts.append((_variance(changes.mean(axis=1)) / m, m - 1))
    parts.append((max(0.0, pictures), max(1, n - 1)))
    return Estimate(float(a.mean() - b.mean()), tuple(parts), judged=min(len(a), len(b)) > 1)


def most_different(tested: Mapping[str, Any]) -> int:
    """Which intensity of a test to show: that with the smallest p-value, and of equal ones, or
    where there is none, the largest.

    Args:
        tested: From `Tested.to_dict`.
    """
    effects, adjusted = tested["effects"], tested["adjusted"]
    return min(
        range(len(effects)),
        key=lambda at: (1.0 if adjusted[at] is None else adjusted[at], -effects[at]["intensity"]),
    )


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _residual_variance(changes: np.ndarray) -> float:
    """s²_residual: what neither a checkpoint's mean nor a picture's explains."""
    m, n = len(changes), len(changes[0])
    if n < 2:
        return 0.0
    rows, columns = changes.mean(axis=1, keepdims=True), changes.mean(axis=0, keepdims=True)
    left = changes - rows - columns + changes.mean()
    return float(np.square(left).sum()) / ((m - 1) * (n - 1))
