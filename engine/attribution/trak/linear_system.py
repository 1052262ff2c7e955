"""The weights W and the damping λ of TRAK's linear system, in its dual and its primal form."""

from __future__ import annotations

from torch import Tensor

from engine.attribution.trak.solver import Road
from engine.store.errors import DataloupeError

_LEAST_Q = 1e-8


def temper(out_to_loss: Tensor, road: Road) -> Tensor:
    """Q^t: what the scores are multiplied by (mean Q) and what `attribute_dual` and `gram` weigh
    training examples by (a checkpoint's own Q). Q that is 1 everywhere weighs nothing."""
    return out_to_loss.abs().clamp(min=_LEAST_Q) ** road.tempering


def example_weights(out_to_loss: Tensor, road: Road) -> Tensor | None:
    """Tempered Q with mean 1, so that checkpoints whose Q differ in size count the same; None
    where all training examples weigh alike."""
    if road.curvature == "plain":
        return None
    weights = temper(out_to_loss, road)
    return weights / weights.mean()


def damp(matrix: Tensor, damping: float) -> None:
    """Add damping · mean diagonal to the diagonal, in place."""
    diagonal = matrix.diagonal()
    diagonal += damping * diagonal.mean()


def singular(damping: float, what: str) -> DataloupeError:
    """The error for a Cholesky factorisation that failed."""
    return DataloupeError(
        f"With damping {damping:g}, {what} is not positive definite in float32. "
        "Raise `trak.damping`, or leave it at its default."
    )
