"""Random projections of per-example gradients that never form the gradient.

The gradient of a linear or convolution weight is Σ_t g_t a_tᵀ over the positions t where the weight
is applied. With two small random matrices

    P_outᵀ (Σ_t g_t a_tᵀ) P_in = Σ_t (P_outᵀ g_t)(P_inᵀ a_t)ᵀ,

a Kronecker-structured Johnson-Lindenstrauss projection (Choe et al. 2024, LoGra; Park et al. 2023,
TRAK, section 3). `make_projection` draws it: each weight gets a share of the width by the energy of
its gradients, and a weight that fits into its share is not projected. The features of all
parameters are joined and, if they are wider than `proj_dim`, sketched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from engine.attribution.trak.backward import Consumer, backward
from engine.attribution.trak.gradients import add_gradient, untapped_gradients
from engine.attribution.trak.layer_gradients import (
    bias_gradient,
    convolve,
    embedding_rows,
    is_conv1d,
    patches,
    positions_of,
    scatter_rows,
    weight_gradient,
)
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.own_parameters import OwnParameter, as_matrix
from engine.attribution.trak.plan import ROWS, Batch, Output, Plan, head, in_order
from engine.attribution.trak.summaries import squared_norms
from engine.store.errors import DataloupeError

_CHECKED_EXAMPLES = 2
_FLAT = 2
"""How many times longer a multiplication takes in one flat product than in a batch of small ones
(measured on CPUs)."""


@dataclass(frozen=True)
class Matrix:
    """The projection of one weight, taken as a matrix `[rows, columns]` (outputs × inputs).

    Attributes:
        left: P_out `[rows, p_out]`; None keeps all rows.
        right: P_in `[columns, p_in]`; None keeps all columns. Columns of a convolution run over
            (kernel, in).
        kernels: P_in as convolution kernels, `[p_in, in, *kernel]`, where it is cheaper to
            convolve with them first; else None.
        start: First column of the features.
        width: p_out · p_in.
    """

    left: Tensor | None
    right: Tensor | None
    kernels: Tensor | None
    start: int
    width: int


@dataclass(frozen=True)
class Projection:
    """A random projection of the gradients of one checkpoint.

    Attributes:
        plan: How gradients are computed.
        matrices: Weight name → its projection.
        rest: All other parameters by name → first column of each in their joined gradient.
        rest_size: Length of that joined gradient.
        rest_left: `[rest_size, p]`, which projects it; None keeps it as it is.
        rest_start: First column of the rest's features.
        width: Features before the sketch.
        signs: `[width / proj_dim, proj_dim]` of ±1: the sketch; None for none.
        proj_dim: Features after the sketch.
        error: Standard deviation of ‖φ‖²/‖∇‖² for one example that Johnson-Lindenstrauss
            predicts; `check_projection` compares with it.
    """

    plan: Plan
    matrices: dict[str, Matrix]
    rest: dict[str, int]
    rest_size: int
    rest_left: Tensor | None
    rest_start: int
    rest_width: int
    width: int
    signs: Tensor | None
    proj_dim: int
    error: float


def project(
    model: nn.Module,
    output: Output,
    batch: Batch,
    projection: Projection,
    into: Tensor | None = None,
    watched: Mapping[str, nn.Module] = MappingProxyType({}),
    keep: Consumer | None = None,
) -> Tensor:
    """Features `[batch, proj_dim]`, float32: the projected gradients of the model outputs.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples.
        projection: Of this checkpoint.
        into: Where to write the features; None makes a new tensor.
        watched: Layers outside the projection, by name, that the same pass over the model shows to
            `keep`.
        keep: Receives the uses of `watched` layers.
    """
    plan, signs = projection.plan, projection.signs
    b = len(next(iter(batch.values())))
    device = next(model.parameters()).device
    found = torch.empty(b, projection.proj_dim, device=device) if into is None else into
    if signs is not None:
        found.zero_()
    rest: dict[str, Tensor] = {}
    seen: set[str] = set()

    def put(block: Tensor, name: str, start: int) -> None:
        """Add a block of features, which begins at column `start`."""
        if signs is not None:
            _add_to_sketch(found, block, signs, start)
            return
        columns = found[:, start : start + block.shape[1]]
        if name in seen:
            columns.add_(block)
        else:
            columns.copy_(block)
            seen.add(name)

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        if keep is not None and path in watched:
            keep(path, layer, a, g)
            return
        names = plan.layers[path]
        bias = None
        if names.bias in projection.rest:
            bias = bias_gradient(layer, g)
            add_gradient(rest, names.bias, bias)
        if names.weight in projection.rest:
            add_gradient(rest, names.weight, weight_gradient(layer, a, g, bias))
        elif names.weight in projection.matrices:
            matrix = projection.matrices[names.weight]
            put(_project_use(layer, matrix, a, g).reshape(b, -1), names.weight, matrix.start)

    needed = {
        path: layer
        for path, layer in layers_of(model, plan).items()
        if plan.layers[path].weight in projection.matrices
        or plan.layers[path].weight in projection.rest
        or plan.layers[path].bias in projection.rest
    }
    backward(model, output, batch, {**needed, **watched}, consume, plan.examples)
    for name, matrix in projection.matrices.items():
        if signs is None and name not in seen:  # this batch's outputs do not depend on it
            found[:, matrix.start : matrix.start + matrix.width] = 0
    untapped = [name for name in plan.untapped if name in projection.rest]
    if untapped:
        gradients = untapped_gradients(model, output, batch, untapped, plan.looped)
        sizes = [plan.shapes[name].numel() for name in untapped]
        rest.update(zip(untapped, gradients.split(sizes, 1), strict=True))
    if projection.rest:
        parts = [
            rest[name].reshape(b, -1)
            if name in rest
            else found.new_zeros(b, plan.shapes[name].numel())
            for name in projection.rest
        ]
        joined, left = torch.cat(parts, 1), projection.rest_left
        put(joined if left is None else joined @ left, "", projection.rest_start)
    return found


def _project_use(layer: nn.Module, matrix: Matrix, a: Tensor, g: Tensor) -> Tensor:
    """`[batch, p_out, p_in]` from one use of a layer."""
    left, right = matrix.left, matrix.right
    if isinstance(layer, nn.Embedding):
        rows = embedding_rows(layer, a, g)
        rows = rows if right is None else rows @ right
        if left is not None:
            return left[a.reshape(len(a), -1)].transpose(1, 2) @ rows
        return scatter_rows(rows, a, layer.num_embeddings)
    if isinstance(layer, nn.Linear):
        seen = positions_of(a)
        return _outer(positions_of(g), seen if right is None else seen @ right, left)
    if is_conv1d(layer):  # its weight has a row for each input
        seen = positions_of(g)
        return _outer(positions_of(a), seen if right is None else seen @ right, left)
    if isinstance(layer, OwnParameter):
        table = g.reshape(len(g), *as_matrix(layer.weight.shape))
        table = table if right is None else table @ right
        return table if left is None else left.T @ table
    out = positions_of(g, channels=1)
    if matrix.kernels is not None:
        return _outer(out, positions_of(convolve(layer, a, matrix.kernels), channels=1), left)
    block = _outer(out, patches(layer, a).flatten(2), left)
    return block if right is None else block @ right


def _outer(out: Tensor, seen: Tensor, left: Tensor | None) -> Tensor:
    """leftᵀ Σ_t out_t seen_tᵀ: `[batch, p_out, columns]`, in the cheaper order.

    Args:
        out: `[batch, positions, rows]`.
        seen: `[batch, positions, columns]`.
        left: `[rows, p_out]`; None keeps all rows.
    """
    b, positions, rows = out.shape
    columns = seen.shape[2]
    if left is not None:
        p_out = left.shape[1]
        first, last = outer_costs(positions, rows, columns, p_out)
        if last <= first:
            return torch.bmm(left.T.expand(b, -1, -1), _outer(out, seen, None))
        few = left.T @ out.reshape(-1, rows).T
        return torch.bmm(few.view(p_out, b, positions).transpose(0, 1), seen)
    # Matrix libraries are faster when the rows of the result are long, here and two lines above.
    return torch.bmm(seen.mT, out).mT if columns < rows else torch.bmm(out.mT, seen)


def outer_costs(positions: int, rows: int, columns: int, p_out: int) -> tuple[int, int]:
    """Multiplications that `_outer` takes with P_out applied first, and with P_out applied last."""
    last = rows * columns * positions
    if p_out == rows:
        return last, last
    first = positions * p_out * (_FLAT * rows + columns)
    return first, last + rows * columns * p_out


def _add_to_sketch(sketch: Tensor, block: Tensor, signs: Tensor, start: int) -> None:
    """CountSketch (Charikar et al. 2002) with bucket = column mod proj_dim.

    The buckets need not be random, because the signs are: inner products stay unbiased. Blocks are
    added while they are in the processor's cache; all features of a batch are never in memory.

    Args:
        sketch: `[batch, proj_dim]`.
        block: `[batch, columns]`.
        signs: Of the projection.
        start: The block's first column among all features.
    """
    proj_dim = signs.shape[1]
    done = 0
    while done < block.shape[1]:
        turn, bucket = divmod(start + done, proj_dim)
        part = block[:, done : done + proj_dim - bucket]
        size = part.shape[1]
        buckets = slice(bucket, bucket + size)
        sketch[:, buckets].addcmul_(part, signs[turn, buckets])
        done += size


def features(
    model: nn.Module, output: Output, batches: Iterator[Batch], projection: Projection
) -> Iterator[Tensor]:
    """Yield features `[batch, proj_dim]` batch by batch, in the order of the examples.

    Batches with numbers are kept until all examples up to the highest number are there.

    Raises:
        DataloupeError: A batch's features are not finite.
    """
    blocks: list[Tensor] = []
    numbers: list[Tensor] = []
    start = 0
    for number, batch in enumerate(batches):
        block = project(model, output, batch, projection)
        check_finite(block, f"batch {number}")
        if ROWS not in batch:
            yield block
            continue
        blocks.append(block)
        numbers.append(batch[ROWS] - start)
        if 1 + max(int(rows.max()) for rows in numbers) == sum(map(len, blocks)):
            yield in_order(blocks, numbers)
            start += sum(map(len, blocks))
            blocks, numbers = [], []
    assert not blocks, "the numbers of some examples are missing"


def check_finite(block: Tensor, where: str) -> None:
    """Raise DataloupeError for gradients with NaN or infinity (no temporary array).

    The sum is in single precision, which is fast, and only where that overflows in double.
    """
    if math.isfinite(block.sum().item()):
        return
    if not math.isfinite(block.sum(dtype=torch.float64).item()):
        raise DataloupeError(
            f"The gradients of {where} are not finite: the weights or the data hold NaN or "
            "infinite values, or the model output overflows."
        )


def check_projection(
    model: nn.Module,
    output: Output,
    batch: Batch,
    projection: Projection,
) -> None:
    """Compare projected with exact gradient norms on a few examples.

    Raises:
        DataloupeError: All gradients are zero, one is not finite, or norms differ by more than
            Johnson-Lindenstrauss allows.
    """
    few = head(batch, _CHECKED_EXAMPLES)
    found = project(model, output, few, projection).double().square().sum(1)
    exact = torch.zeros_like(found)
    for name, norms in squared_norms(model, output, few, projection.plan).items():
        if name in projection.matrices or name in projection.rest:
            exact += norms
    if not (exact.isfinite().all() and found.isfinite().all()):
        raise DataloupeError(
            "The gradients of the first examples are not finite: the weights or the data hold NaN "
            "or infinite values."
        )
    if (exact == 0).all():
        if any(projection.plan.energies[name] for name in (*projection.matrices, *projection.rest)):
            return  # of these two only, not of the examples that the plan was made with
        raise DataloupeError(
            "The gradients of the first examples are all zero: the model output does not depend "
            "on any attributed parameter."
        )
    ratio = found.sum().item() / exact.sum().item()
    allowed = 1e-3 + 6 * projection.error
    if not max(0.01, 1 - allowed) < ratio < 1 + allowed:
        raise DataloupeError(
            f"The projection changed the squared norm of gradients by a factor of {ratio:.3g}; "
            f"with {projection.proj_dim} features it may differ from 1 by {allowed:.2g} at most. "
            "Raise `trak.width` or `trak.proj_dim`."
        )
