"""The weights W and the damping λ of TRAK's linear system, in its dual and its primal form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.attribution.trak.solver import Solver
from engine.store.errors import DataloupeError

_LEAST_Q = 1e-8


def temper(out_to_loss: Tensor, solver: Solver) -> Tensor:
    """Q^t with the sign of Q `[n_train]`, the tempered out-to-loss gradient.

    Scores are multiplied by it (with Q averaged over checkpoints), and training examples are
    weighted by its size in each checkpoint's linear system.
    """
    size = out_to_loss.abs().clamp(min=_LEAST_Q) ** solver.tempering
    return torch.where(out_to_loss < 0, -size, size)


def example_weights(out_to_loss: Tensor, solver: Solver) -> Tensor | None:
    """The diagonal of W `[n_train]`: tempered Q, scaled to mean 1 so that checkpoints with larger Q
    do not count more. None where all training examples have the same weight."""
    if solver.curvature != "gauss-newton":
        return None
    weights = temper(out_to_loss, solver).abs()
    return weights / weights.mean()


def weight_array(out_to_loss: np.ndarray, solver: Solver) -> np.ndarray:
    """The diagonal of W as an array, float32 `[n_train]`; 1 where all have the same weight."""
    weights = example_weights(torch.from_numpy(out_to_loss), solver)
    return np.ones(len(out_to_loss), np.float32) if weights is None else weights.numpy()


def damp(matrix: Tensor, damping: float) -> None:
    """Add λ = damping · mean of the diagonal to the diagonal, in place."""
    diagonal = matrix.diagonal()
    diagonal += damping * diagonal.mean()


def not_positive_definite(damping: float, what: str) -> DataloupeError:
    """The error for a Cholesky factorization that failed."""
    return DataloupeError(
        f"With damping {damping:g}, {what} is not positive definite in float32. "
        "Raise `trak.damping`, or leave it at its default."
    )
