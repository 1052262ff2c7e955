"""TRAK's primal: solve with the `[p, p]` Gram matrix of projected gradients.

The `features` of the training examples are stored once. `gram` and `test_factors` then turn test
features into factors, so that a block of scores is `test_factors @ block.T`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engine.attribution.scores.row_shards import Rows
from engine.attribution.trak.kernel import Batches
from engine.attribution.trak.linear_system import damp, example_weights, not_positive_definite
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.plan import Batch, Output
from engine.attribution.trak.projection import Projection, check_projection, features
from engine.attribution.trak.solver import Solver


def primal_projection(
    model: nn.Module, output: Output, batch: Batch, solver: Solver, seed: int
) -> Projection:
    """Draw and check the projection of one checkpoint.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: The first training examples, `PROOF_EXAMPLES` or more.
        solver: `primal`.
        seed: Different for each checkpoint.

    Raises:
        CheckpointError: The model cannot be attributed.
        DataloupeError: Gradients are zero or not finite, or the projection distorts them.
    """
    plan = plan_gradients(model, output, batch)
    projection = make_projection(plan, model, solver.width, solver.proj_dim, seed)
    check_projection(model, output, batch, projection)
    return projection


def features_of(
    model: nn.Module, outputs: Sequence[Output], batches: Batches, projection: Projection
) -> Tensor:
    """Features of some examples for each of several outputs, `[outputs · rows, p]`, the first
    output first; divided by √outputs, so that a Gram matrix of them is a mean over outputs."""
    blocks = [part for one in outputs for part in features(model, one, batches(), projection)]
    return torch.cat(blocks).div_(len(outputs) ** 0.5)


def blocks_of(shards: Sequence[Rows]) -> Iterator[Tensor]:
    """Stored features `[rows, p]`, one shard after another."""
    return (torch.from_numpy(np.array(shard[:])) for shard in shards)


def gram(
    blocks: Iterable[Tensor], solver: Solver | None = None, out_to_loss: Tensor | None = None
) -> Tensor:
    """ΦᵀWΦ `[p, p]`, float32, summed over blocks `[rows, p]` of training features.

    Args:
        blocks: Features in the order of the training examples.
        solver: Gives the tempering; needed only with `out_to_loss`.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`; None for W = I.
    """
    total: Tensor | None = None
    weights: Tensor | None = None
    row = 0
    for block in blocks:
        block = block.float()
        if total is None:
            total = block.new_zeros(block.shape[1], block.shape[1])
            if solver is not None and out_to_loss is not None:
                weights = example_weights(out_to_loss.to(total), solver)
        weighted = block if weights is None else block * weights[row : row + len(block), None]
        total.addmm_(block.T, weighted)
        row += len(block)
    if total is None:
        raise ValueError("there are no training features")
    return total


def test_factors(gram: Tensor, test_features: Tensor, damping: float) -> Tensor:
    """(ΦᵀWΦ + λ · mean diag · I)⁻¹ φ(x) `[n_test, p]`: scores of a block are `factors @ block.T`.

    Args:
        gram: ΦᵀWΦ `[p, p]`, from `gram`.
        test_features: φ(x) `[n_test, p]`.
        damping: λ, relative to the mean of the diagonal.

    Raises:
        DataloupeError: The damped Gram matrix is not positive definite.
    """
    return torch.cholesky_solve(test_features.float().mT, gram_factor(gram, damping)).mT


def gram_factor(gram: Tensor, damping: float) -> Tensor:
    """Lower Cholesky factor of ΦᵀWΦ + λ · mean diag · I.

    Raises:
        DataloupeError: The damped Gram matrix is not positive definite.
    """
    damped = gram.clone()
    damp(damped, damping)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise not_positive_definite(damping, f"the Gram matrix of {len(gram)} features")
    return factor
