"""Draw the random projection of one checkpoint's gradients, and split it into parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.attribution.trak.layer_gradients import CONVOLUTIONS, is_conv1d
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.own_parameters import OwnParameter, as_matrix
from engine.attribution.trak.plan import Plan
from engine.attribution.trak.projection import Matrix, Projection, outer_costs
from engine.store import fingerprint_of

_CHANNELS = 16
"""Convolutions compute channels in blocks of this size: 25 take longer than 32 (oneDNN, CPUs)."""
_TABLE = 4096
"""From this size on, a parameter without a layer is projected as a matrix: a dense projection of a
table of positions would cost its size times the width."""
_COPY = 16
"""How many multiplications take as long as copying one number into a patch (measured on CPUs)."""


def make_projection(
    plan: Plan,
    model: nn.Module,
    width: int,
    proj_dim: int | None,
    seed: int,
    only: Callable[[str], bool] = lambda name: True,
) -> Projection:
    """Draw the projection of one checkpoint. A seed gives the same projection on every device.

    Args:
        plan: From `plan_gradients`.
        model: Gives the layers and the device.
        width: Features before the sketch; fewer if all parameters fit without projection.
        proj_dim: Features after the sketch; None for no sketch.
        seed: Different for each checkpoint.
        only: Whether to include a parameter, by name.
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
        shape = plan.shapes[name]
        rows, columns = shape[0], shape[1:].numel()
        if isinstance(layer, OwnParameter):
            rows, columns = as_matrix(shape)
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
    """Split a projection without sketch into parts of at most `width` features.

    A part is wider where a single block is.
    """
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

    The error of an inner product is about Σ energy²/width over the blocks, which this minimizes.
    No block gets more than its size; the surplus goes to the others. Every non-empty block gets at
    least 1. Where the width suffices for all blocks, each gets its size whatever its energy: an
    exact kernel must not depend on how shares are rounded.
    """
    if sum(sizes.values()) <= width:
        return dict(sizes)
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
    if isinstance(layer, OwnParameter):
        return min(as_matrix(layer.weight.shape)) > 1 and layer.weight.numel() >= _TABLE
    return isinstance(layer, (nn.Linear, nn.Embedding)) or is_conv1d(layer)


def _sides(rows: int, columns: int, share: int, step: int) -> tuple[int, int]:
    """(p_out, p_in) with p_out · p_in ≤ share, as square as the weight allows.

    The error of a Kronecker projection is about 2/p_out + 2/p_in, so the shorter side decides.
    p_in becomes a multiple of `step` where the share is large enough.
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
    """`[size, kept]` with orthogonal columns and E[P Pᵀ] = I; None when all of `size` is kept.

    Orthogonal columns have a smaller error than Gaussian ones, above all where `kept` is a large
    part of `size`.
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
    """Whether convolving with P_in costs less than extracting patches and projecting their sum."""
    early = positions * columns * p_in + min(outer_costs(positions, rows, p_in, p_out))
    late = positions * columns * _COPY + min(outer_costs(positions, rows, columns, p_out))
    if p_in < columns:
        late += p_out * columns * p_in
    return early <= late


def _as_kernels(layer: nn.Module, right: Tensor | None) -> Tensor:
    """P_in `[columns, p_in]` as convolution kernels; the identity for None."""
    assert isinstance(layer, CONVOLUTIONS)
    if right is None:
        right = torch.eye(layer.weight[0].numel(), device=layer.weight.device)
    shape = (right.shape[1], *layer.kernel_size, layer.in_channels)
    # `movedim` leaves them channels-last in memory, which oneDNN takes without a copy.
    return right.T.contiguous().view(shape).movedim(-1, 1)
