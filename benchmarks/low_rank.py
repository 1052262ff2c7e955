"""Training features as low-rank factors of each layer, instead of a sketch of all layers.

The projected gradient of a layer is a matrix P_outᵀ (Σ_t g_t a_tᵀ) P_in. LoRIF (Li et al. 2026,
arXiv 2601.21929) keeps its best factors of rank c, c (p_out + p_in) numbers, which allows larger
p_out and p_in than p_out · p_in numbers would. A layer that is applied once to an example has a
gradient of rank one, so that nothing is lost there.

Scores come from the factors as from any features. They need the products of all layers' matrices
with those of the test example: as many multiplications as features of p_out · p_in numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.workload import batches_of, task
from engine.attribution.trak.dual import solve
from engine.attribution.trak.kernel import Kernel, first_examples
from engine.attribution.trak.linear_system import example_weights
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.projection import Projection
from engine.attribution.trak.solver import Solver

RANKS = 1, 2, 4
WIDTH = 8_192
"""Numbers of all layers' matrices together: twice the default features."""
BYTES = 2
"""Of a number: factors are kept as float16."""


def in_low_rank(features: Tensor, projection: Projection, rank: int) -> Tensor:
    """What is left of features `[n, width]` when each layer's matrix has at most this rank."""
    left = features.half().float()
    for name, matrix in projection.matrices.items():
        rows, columns = sides_of(projection, name)
        if rank * (rows + columns) >= rows * columns:
            continue
        part = slice(matrix.start, matrix.start + matrix.width)
        u, s, v = torch.linalg.svd(features[:, part].unflatten(1, (rows, columns)), False)
        root = s[:, :rank].sqrt()
        out = (u[:, :, :rank] * root[:, None]).half().float()
        into = (root[:, :, None] * v[:, :rank]).half().float()
        left[:, part] = (out @ into).flatten(1)
    return left


def low_rank_bytes(projection: Projection, rank: int) -> int:
    """Bytes of the factors of one example."""
    numbers = projection.rest_width
    for name in projection.matrices:
        rows, columns = sides_of(projection, name)
        numbers += min(rows * columns, rank * (rows + columns))
    return BYTES * numbers


def sides_of(projection: Projection, name: str) -> tuple[int, int]:
    """(p_out, p_in) of a weight's matrix."""
    matrix = projection.matrices[name]
    rows = projection.plan.shapes[name][0] if matrix.left is None else matrix.left.shape[1]
    return rows, matrix.width // rows


def factored_projection(model: nn.Module, seed: int) -> Projection:
    """A projection that leaves the matrices of layers apart."""
    output, first = task().model_output, first_examples(batches_of("train"))
    return make_projection(plan_gradients(model, output, first), model, WIDTH, None, seed)


def wide_scores(train: Tensor, test: Tensor, solver: Solver, q: Tensor) -> Tensor:
    """TRAK's scores `[n_test, n_train]` of one checkpoint, from features of any width.

    Args:
        train, test: Features `[n, width]`.
        solver: Of the primal, with its damping and tempering.
        q: Out-to-loss gradients `[n_train]`.
    """
    kernel = Kernel(train @ train.T, train @ test.T)
    # The primal's λ is relative to a mean over its features, the dual's to one over examples.
    damping = solver.damping * len(train) / solver.proj_dim
    return solve(kernel, damping, example_weights(q, solver))
