"""The solver that attributions take, as the store keeps it: read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Solver:
    """How attributions are computed. The same for all checkpoints of an algorithm.

    Attributes:
        kind: `dual-exact`, `dual-wide` or `primal`.
        width: Features per example before the sketch (primal) or in the kernel (dual-wide);
            the number of parameters taken as features in dual-exact.
        proj_dim: Features per example that are stored (primal); equals `width` in the dual.
        damping: λ relative to the mean diagonal of the (weighted) Gram matrix or kernel.
        reason: One sentence for the badge.
        tempering: t, the power that the out-to-loss gradient Q is raised to.
        curvature: `gauss-newton` weighs training examples in the Gram matrix by Q^t, `plain` alike.
        soft_threshold: How far scores are shrunk towards 0, in standard deviations of each test
            example's scores.
    """

    kind: Literal["dual-exact", "dual-wide", "primal"]
    width: int
    proj_dim: int
    damping: float
    reason: str
    tempering: float
    curvature: Literal["gauss-newton", "plain"]
    soft_threshold: float = 0.0
