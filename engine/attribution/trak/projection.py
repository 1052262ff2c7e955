"""Random projections of per-example gradients that never form the gradient.

The gradient of a linear or convolution weight is Σ_t g_t a_tᵀ over the positions t where the weight
is applied. With two small random matrices

    P_outᵀ (Σ_t g_t a_tᵀ) P_in = Σ_t (P_outᵀ g_t)(P_inᵀ a_t)ᵀ,

a Kronecker-structured Johnson-Lindenstrauss projection (Choe et al. 2024, LoGra; Park et al. 2023,
TRAK, section 3). Each weight gets a share of the width by the energy of its gradients; what fits
its share is taken exactly. The features of all parameters are joined and, if wider than asked for,
sketched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine.attribution.trak.gradients import (
    CONVOLUTIONS,
    Batch,
    Output,
    Plan,
    add_gradient,
    backward,
    bias_gradient,
    convolve,
    embedding_rows,
    head,
    layers_of,
    patches,
    per_example_gradients,
    positions_of,
    scatter_rows,
    untapped_gradients,
    weight_gradient,
)
from engine.store import fingerprint_of
from engine.store.errors import DataloupeError

_CHECKED_EXAMPLES = 2
_CHANNELS = 16
"""Convolutions make their channels in blocks of so many; 25 take longer than 32 (oneDNN, CPUs)."""
_FLAT = 2
"""How much longer a multiplication takes in one flat product than in a batch of small ones."""
_COPY = 16
"""Multiplications that take as long as copying one number into a patch (both measured on CPUs)."""


@dataclass(frozen=True)
class Matrix:
    """The share of one weight, seen as a matrix `[rows, columns]` (outputs × inputs).

    Attributes:
        left: P_out `[rows, p_out]`, or None for all rows as they are.
        right: P_in `[columns, p_in]`, or None. Columns of a convolution run over (kernel, in).
        kernels: P_in laid out as the kernels of a convolution, `[p_in, in, *kernel]`, where to
            convolve with them first is cheaper; else None.
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
        plan: How gradients are got.
        matrices: Weight name → its projection.
        rest: Names of all other parameters → first column of each in the joined rest.
        rest_size: Length of the joined rest.
        rest_left: `[rest_size, p]` that projects the joined rest, or None to take it exactly.
        rest_start: First column of the rest's features.
        width: Features before the sketch.
        signs: `[width / proj_dim, proj_dim]` of ±1: the sketch; None for none.
        proj_dim: Features that come out.
        error: Standard deviation that JL promises for ‖φ‖²/‖∇‖² of one example, for the check.
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


# --- making one ----------------------------------------------------------------------------------


def make_projection(
    plan: Plan,
    model: nn.Module,
    width: int,
    proj_dim: int | None,
    seed: int,
    only: Callable[[str], bool] = lambda name: True,
) -> Projection:
    """Draw the projection of one checkpoint. The same seed gives the same on every device.

    Args:
        plan: From `plan_gradients`.
        model: Names the layers and the device.
        width: Features to share out before the sketch; fewer if all parameters fit exactly.
        proj_dim: Features after the sketch; None for no sketch.
        seed: A checkpoint's own.
        only: Parameters to take in, by name; the others are left out.
    """
    layers = layers_of(model, plan)
    device = next(model.parameters()).device
    owners: dict[str, nn.Module] = {}
    positions: dict[str, int] = {}
    for path, names in plan.layers.items():
        if names.weight and only(names.weight) and _is_matrix(layers[path]):
            owners.setdefault(names.weight, layers[path])
            positions.setdefault(names.weight, names.positions)
    rest: dict[str, int] = {}
    rest_size = 0
    for name, shape in plan.shapes.items():
        if name not in owners and only(name):
            rest[name] = rest_size
            rest_size += shape.numel()
    sizes = {name: plan.shapes[name].numel() for name in owners} | {"": rest_size}
    energies = {name: plan.energies[name] for name in owners}
    energies[""] = sum(plan.energies[name] for name in rest)
    shares = share_out(sizes, energies, width)
    matrices: dict[str, Matrix] = {}
    start, variance = 0, 0.0
    for name, layer in owners.items():
        rows, columns = plan.shapes[name][0], plan.shapes[name][1:].numel()
        step = _CHANNELS if isinstance(layer, CONVOLUTIONS) else 1
        p_out, p_in = _sides(rows, columns, shares[name], step)
        left = _orthogonal(rows, p_out, fingerprint_of(seed, name, "out"), device)
        right = _orthogonal(columns, p_in, fingerprint_of(seed, name, "in"), device)
        kernels = None
        if isinstance(layer, CONVOLUTIONS) and _convolves(
            positions[name], rows, columns, p_out, p_in
        ):
            kernels = _as_kernels(layer, right)
        matrices[name] = Matrix(left, right, kernels, start, p_out * p_in)
        variance = max(variance, _variance(rows, p_out) + _variance(columns, p_in))
        start += p_out * p_in
    rest_width = min(shares[""], rest_size)
    rest_left = _orthogonal(rest_size, rest_width, fingerprint_of(seed, "rest"), device)
    variance = max(variance, _variance(rest_size, rest_width))
    total = start + rest_width
    signs = None
    if proj_dim is not None and total > proj_dim:
        turns = -(-total // proj_dim)
        generator = _generator(fingerprint_of(seed, "sketch"))
        bits = torch.randint(0, 2, (turns, proj_dim), generator=generator)
        signs = (bits * 2.0 - 1.0).to(device)
        variance += 2 / proj_dim
    return Projection(
        plan=plan,
        matrices=matrices,
        rest=rest,
        rest_size=rest_size,
        rest_left=rest_left,
        rest_start=start,
        rest_width=rest_width,
        width=total,
        signs=signs,
        proj_dim=total if signs is None else signs.shape[1],
        error=math.sqrt(variance),
    )


def split(projection: Projection, width: int) -> list[Projection]:
    """Cut an unsketched projection into parts of at most `width` features where blocks allow."""
    assert projection.signs is None
    blocks = [(name, matrix.width) for name, matrix in projection.matrices.items()]
    blocks.append(("", projection.rest_width))
    groups: list[list[str]] = []
    room = 0
    for name, size in blocks:
        if size == 0:
            continue
        if size > room or not groups:
            groups.append([])
            room = max(width, size)
        groups[-1].append(name)
        room -= size
    return [_part(projection, set(group)) for group in groups]


def _part(projection: Projection, names: set[str]) -> Projection:
    matrices: dict[str, Matrix] = {}
    start = 0
    for name, matrix in projection.matrices.items():
        if name in names:
            matrices[name] = replace(matrix, start=start)
            start += matrix.width
    rest_width = projection.rest_width if "" in names else 0
    return replace(
        projection,
        matrices=matrices,
        rest=projection.rest if rest_width else {},
        rest_size=projection.rest_size if rest_width else 0,
        rest_left=projection.rest_left if rest_width else None,
        rest_start=start,
        rest_width=rest_width,
        width=start + rest_width,
        proj_dim=start + rest_width,
    )


def share_out(
    sizes: Mapping[str, int], energies: Mapping[str, float], width: int
) -> dict[str, int]:
    """Share `width` among blocks in proportion to the energy of their gradients.

    The error of an inner product is about Σ energy²/width over the blocks, which this minimises.
    None gets more than its size; what is left over goes to the others. Every non-empty block gets
    at least 1.
    """
    shares: dict[str, int] = {}
    left_energy, left_width = sum(energies.values()), width
    for name in sorted(sizes, key=lambda name: (sizes[name] / (energies[name] or 1e-30), name)):
        part = energies[name] / left_energy if left_energy > 0 else 1.0
        shares[name] = min(sizes[name], max(1, int(left_width * min(1.0, part))))
        left_energy -= energies[name]
        left_width = max(0, left_width - shares[name])
    return shares


def _is_matrix(layer: nn.Module) -> bool:
    if isinstance(layer, CONVOLUTIONS):
        return layer.groups == 1
    return isinstance(layer, (nn.Linear, nn.Embedding))


def _sides(rows: int, columns: int, share: int, step: int) -> tuple[int, int]:
    """(p_out, p_in) with p_out · p_in ≤ share, as square as the weight allows.

    The error of a Kronecker projection is about 2/p_out + 2/p_in, so the shorter side decides.
    p_in becomes a multiple of `step` where the share has room for one.
    """
    if rows * columns <= share:
        return rows, columns
    p_out = min(rows, max(1, math.isqrt(share)))
    p_in = min(columns, max(1, share // p_out))
    if step < columns and step <= share:
        p_in = max(step, p_in - p_in % step)
    return min(rows, max(1, share // p_in)), p_in


def _variance(size: int, kept: int) -> float:
    return 0.0 if kept in (0, size) else 2 / kept * (1 - kept / size)


def _orthogonal(size: int, kept: int, key: str, device: torch.device) -> Tensor | None:
    """`[size, kept]` with orthogonal columns and E[P Pᵀ] = I; None when nothing is to be cut.

    Orthogonal columns err less than Gaussian ones, the more so the more of the space they keep.
    """
    if kept >= size:
        return None
    gaussian = torch.randn(size, kept, generator=_generator(key), dtype=torch.float32)
    basis, triangle = torch.linalg.qr(gaussian)
    basis *= triangle.diagonal().sign()  # makes the draw uniform (Mezzadri 2007)
    scaled: Tensor = basis * math.sqrt(size / kept)
    return scaled.contiguous().to(device)


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(key[:15], 16))


def _convolves(positions: int, rows: int, columns: int, p_out: int, p_in: int) -> bool:
    """Whether to convolve with P_in takes less than to cut patches out and to project their sum."""
    early = positions * columns * p_in + min(_costs(positions, rows, p_in, p_out))
    late = positions * columns * _COPY + min(_costs(positions, rows, columns, p_out))
    if p_in < columns:
        late += p_out * columns * p_in
    return early <= late


def _as_kernels(layer: nn.Module, right: Tensor | None) -> Tensor:
    """P_in `[columns, p_in]` as kernels; all columns as they are for None."""
    assert isinstance(layer, CONVOLUTIONS)
    if right is None:
        right = torch.eye(layer.weight[0].numel(), device=layer.weight.device)
    shape = (right.shape[1], *layer.kernel_size, layer.in_channels)
    # Channels last in memory, as `movedim` leaves them: oneDNN takes that as it is.
    return right.T.contiguous().view(shape).movedim(-1, 1)


# --- using it ------------------------------------------------------------------------------------


def project(
    model: nn.Module,
    output: Output,
    batch: Batch,
    projection: Projection,
    into: Tensor | None = None,
) -> Tensor:
    """Features `[batch, proj_dim]`, float32: the projected gradients of the model outputs.

    Args:
        model: In eval mode.
        output: The task's model output.
        batch: Prepared examples.
        projection: Of this checkpoint.
        into: Where to write them; a new tensor if None.
    """
    plan = projection.plan
    b = len(next(iter(batch.values())))
    device = next(model.parameters()).device
    if projection.signs is not None or into is None:
        turns = 1 if projection.signs is None else len(projection.signs)
        wide = torch.zeros(b, turns * projection.proj_dim, device=device)
    else:
        wide = into
    rest: dict[str, Tensor] = {}
    seen: set[str] = set()

    def consume(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        names = plan.layers[path]
        bias = None
        if names.bias in projection.rest:
            bias = bias_gradient(layer, g)
            add_gradient(rest, names.bias, bias)
        if names.weight in projection.rest:
            add_gradient(rest, names.weight, weight_gradient(layer, a, g, bias))
        elif names.weight in projection.matrices:
            matrix = projection.matrices[names.weight]
            columns = wide[:, matrix.start : matrix.start + matrix.width]
            block = _project_use(layer, matrix, a, g).reshape(b, -1)
            if names.weight in seen:
                columns.add_(block)
            else:
                columns.copy_(block)
                seen.add(names.weight)

    needed = {
        path: layer
        for path, layer in layers_of(model, plan).items()
        if plan.layers[path].weight in projection.matrices
        or plan.layers[path].weight in projection.rest
        or plan.layers[path].bias in projection.rest
    }
    backward(model, output, batch, needed, consume)
    for name, matrix in projection.matrices.items():
        if name not in seen:  # this batch's outputs do not depend on it
            wide[:, matrix.start : matrix.start + matrix.width] = 0
    untapped = [name for name in plan.untapped if name in projection.rest]
    if untapped:
        gradients = untapped_gradients(model, output, batch, untapped, plan.looped)
        sizes = [plan.shapes[name].numel() for name in untapped]
        rest.update(zip(untapped, gradients.split(sizes, 1), strict=True))
    if projection.rest:
        parts = [
            rest[name].reshape(b, -1)
            if name in rest
            else wide.new_zeros(b, plan.shapes[name].numel())
            for name in projection.rest
        ]
        end = projection.rest_start + projection.rest_width
        joined, left = torch.cat(parts, 1), projection.rest_left
        wide[:, projection.rest_start : end] = joined if left is None else joined @ left
    if projection.signs is None:
        return wide
    return _sketch(wide, projection.signs, into)


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
        left: `[rows, p_out]`; None for all rows as they are.
    """
    b, positions, rows = out.shape
    columns = seen.shape[2]
    if left is not None:
        p_out = left.shape[1]
        first, last = _costs(positions, rows, columns, p_out)
        if last <= first:
            return torch.bmm(left.T.expand(b, -1, -1), _outer(out, seen, None))
        few = left.T @ out.reshape(-1, rows).T
        return torch.bmm(few.view(p_out, b, positions).transpose(0, 1), seen)
    # Matrix libraries are faster the longer the rows of what they make, here as two lines above.
    return torch.bmm(seen.mT, out).mT if columns < rows else torch.bmm(out.mT, seen)


def _costs(positions: int, rows: int, columns: int, p_out: int) -> tuple[int, int]:
    """What `_outer` costs, in multiplications, with P_out first and with P_out last."""
    last = rows * columns * positions
    if p_out == rows:
        return last, last
    first = positions * p_out * (_FLAT * rows + columns)
    return first, last + rows * columns * p_out


def _sketch(wide: Tensor, signs: Tensor, into: Tensor | None) -> Tensor:
    """CountSketch (Charikar et al. 2002) with bucket = column mod proj_dim.

    The buckets need not be random, since the signs are: inner products stay unbiased.
    """
    turned = wide.unflatten(1, signs.shape)
    result = torch.mul(turned[:, 0], signs[0], out=into)
    for turn in range(1, len(signs)):
        result.addcmul_(turned[:, turn], signs[turn])
    return result


def features(
    model: nn.Module, output: Output, batches: Iterator[Batch], projection: Projection
) -> Iterator[Tensor]:
    """Yield features `[batch, proj_dim]` batch by batch.

    Raises:
        DataloupeError: A batch's features are not finite.
    """
    for number, batch in enumerate(batches):
        block = project(model, output, batch, projection)
        check_finite(block, f"batch {number}")
        yield block


def check_finite(block: Tensor, where: str) -> None:
    """Raise DataloupeError for gradients that hold NaN or infinity (one pass, no temporary)."""
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
        DataloupeError: A gradient is zero or not finite, or norms are further apart than
            Johnson-Lindenstrauss allows.
    """
    few = head(batch, _CHECKED_EXAMPLES)
    found = project(model, output, few, projection).double().square().sum(1)
    exact = torch.zeros_like(found)
    for name, gradient in per_example_gradients(model, output, few, projection.plan).items():
        if name in projection.matrices or name in projection.rest:
            exact += gradient.double().square().reshape(len(gradient), -1).sum(1)
    if not (exact.isfinite().all() and found.isfinite().all()):
        raise DataloupeError(
            "The gradients of the first examples are not finite: the weights or the data hold NaN "
            "or infinite values."
        )
    if (exact == 0).all():
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
