"""How TRAK's linear system is solved, as the store keeps it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.attribution.scores.packed_rows import Storage

Kind = Literal["dual-exact", "dual-wide", "primal"]
Precision = Literal["float32", "bfloat16"]
ROUNDING: Mapping[Precision, float] = {"float32": 0.0, "bfloat16": 2.0**-6}
"""By how much features of the same example can differ between batches, relative to the largest,
beyond the rounding of float32."""


@dataclass(frozen=True)
class Solver:
    """How TRAK's scores are computed, the same for all checkpoints of an algorithm.

    Attributes:
        kind: `dual-exact`, `dual-wide` or `primal`.
        width: Features per example: before the sketch (primal), in the kernel (dual-wide), or the
            number of parameters that become features (dual-exact).
        proj_dim: Features per example that are stored (primal); equal to `width` in the dual.
        damping: λ, relative to the mean of the diagonal of the weighted Gram matrix or kernel.
        reason: Why it was chosen, one sentence for people.
        tempering: t, the power to which the out-to-loss gradient Q is raised.
        curvature: `gauss-newton` weights training examples by Q^t in the Gram matrix; `plain`
            gives all the same weight; `sampled` has random gradients of what is predicted in it
            instead (`engine.tasks.ModelOutput.sample`; only with the primal).
        samples: How many of each training example, if it is `sampled`.
        soft_threshold: How far scores are shrunk toward 0, in standard deviations of each test
            example's scores.
        storage: In how many bits features are stored (primal).
        precision: What the layers of a model compute in where gradients are taken.
    """

    kind: Kind
    width: int
    proj_dim: int
    damping: float
    reason: str
    tempering: float
    curvature: Literal["gauss-newton", "plain", "sampled"]
    soft_threshold: float = 0.0
    storage: Storage = "float32"
    precision: Precision = "float32"
    samples: int = 0
