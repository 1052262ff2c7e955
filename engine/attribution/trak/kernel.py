"""The after-kernel K = ΦΦᵀ of one checkpoint, which TRAK's dual solves with.

    Φ (ΦᵀΦ + λI)⁻¹ φ(x) = (K + λI)⁻¹ k(x)

For a linear layer that is applied once to an example, the kernel of two examples is (g·g′)(a·a′):
K then costs a few matrix products, and no gradient is ever formed. The gradients of all other
parameters enter as features, exactly where the width allows and projected where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.attribution.trak.backward import Consumer, backward
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.make_plan import PROOF_EXAMPLES
from engine.attribution.trak.make_projection import make_projection, split
from engine.attribution.trak.plan import Batch, Output, Plan, head, rows_of, size_of, where
from engine.attribution.trak.projection import Projection, check_finite, check_projection, project

Batches = Callable[[], Iterator[Batch]]
"""A function that yields prepared batches, from the first one at every call."""

NO_LIMIT = 2**62
"""A `memory_bytes` that limits nothing."""
_ROWS = 1024
"""Rows and columns of a block of the kernel; only blocks on or above the diagonal are computed."""


@dataclass(frozen=True)
class Kernel:
    """The after-kernel of one checkpoint.

    Attributes:
        train: K `[n_train, n_train]` float32; only the upper triangle is filled in.
        test: k `[n_train, n_test]` float32.
    """

    train: Tensor
    test: Tensor


def outer_layers(plan: Plan, model: nn.Module) -> tuple[str, ...]:
    """Linear layers whose exact kernel is (g·g′)(a·a′): applied once, weights not shared."""
    owners: dict[str, int] = {}
    for names in plan.layers.values():
        for name in (names.weight, names.bias):
            if name:
                owners[name] = owners.get(name, 0) + 1
    return tuple(
        path
        for path, layer in layers_of(model, plan).items()
        if isinstance(layer, nn.Linear)
        and plan.layers[path].positions == 1
        and (weight := plan.layers[path].weight) is not None
        and owners[weight] == 1
        and ((bias := plan.layers[path].bias) is None or owners[bias] == 1)
    )


def feature_parameters(plan: Plan, model: nn.Module) -> list[str]:
    """Parameters outside `outer_layers`, whose gradients become features."""
    outer = [plan.layers[path] for path in outer_layers(plan, model)]
    covered = {name for names in outer for name in (names.weight, names.bias)}
    return [name for name in plan.shapes if name not in covered]


def _weight(plan: Plan, path: str) -> str:
    weight = plan.layers[path].weight
    assert weight is not None
    return weight


def kernel_bytes(plan: Plan, model: nn.Module, n_train: int, n_test: int, width: int) -> int:
    """Bytes that `make_kernel` and `dual.solve` need at least: kernels, factor, widest block."""
    outer = sum(sum(plan.shapes[_weight(plan, path)]) for path in outer_layers(plan, model))
    names = feature_parameters(plan, model)
    widest = max((min(width, plan.shapes[name].numel()) for name in names), default=0)
    n = n_train + n_test
    return 4 * (2 * n_train * n_train + 2 * n_train * n_test + n * (outer + widest))


def make_kernel(
    model: nn.Module,
    output: Output,
    train: Batches,
    test: Batches,
    plan: Plan,
    width: int,
    seed: int,
    memory_bytes: int,
    of_test: Output | None = None,
) -> Kernel:
    """Compute K and k of one checkpoint, in several passes over the data if memory is short.

    Args:
        model: In eval mode.
        output: What training examples stand with (`engine.tasks.Task.trained_output`).
        train: Training examples.
        test: Test examples.
        plan: From `plan_gradients`.
        width: Features for all parameters outside `outer_layers`; exact if it is at least the
            number of those parameters.
        seed: Of the projection; different for each checkpoint.
        memory_bytes: Memory limit; features are computed in as many passes as it takes.
        of_test: The output of test examples; None: the same.

    Raises:
        CheckpointError, DataloupeError: Gradients are zero or not finite.
    """
    n_train, n_test = count(train), count(test)
    n = n_train + n_test
    device = next(model.parameters()).device
    found = layers_of(model, plan)
    layers = {path: found[path] for path in outer_layers(plan, model)}
    factors = _no_factors(plan, layers, n, device)
    kernel = torch.zeros(n_train, n_train, device=device)
    cross = torch.zeros(n_train, n_test, device=device)
    free = memory_bytes - 8 * n_train * n
    parts: list[Projection] = []
    if chosen := set(feature_parameters(plan, model)):
        whole = make_projection(plan, model, width, None, seed, chosen.__contains__)
        if not layers or any(plan.energies[name] for name in chosen):
            # Otherwise only the exact layers have gradients, as over a backbone under no_grad.
            check_projection(model, output, first_examples(train), whole)
        parts = split(whole, max(1, free // (4 * n)))
    # One pass over the model collects the factors and the first features, where both fit.
    taken = sum(a.nbytes + g.nbytes for a, g in factors.values())
    together = bool(parts) and taken + 4 * n * parts[0].width <= free
    of_test = of_test or output
    if layers and not together:
        for rows, batch, of in _numbered((train, output), (test, of_test), n_train):
            backward(model, of, batch, layers, _keep_at(rows, factors), plan.examples)
        _add_factors(kernel, cross, plan, factors)
    for part in parts:
        watched = layers if together and part is parts[0] else {}
        features = torch.empty(n, part.width, device=device)
        for rows, batch, of in _numbered((train, output), (test, of_test), n_train):
            into = features[rows] if isinstance(rows, slice) else None
            block = project(model, of, batch, part, into, watched, _keep_at(rows, factors))
            check_finite(block, where(rows))
            if into is None:
                features[rows] = block
        if watched:
            _add_factors(kernel, cross, plan, factors)
        _add_features(kernel, cross, features)
        del features
    return Kernel(kernel, cross)


def _numbered(
    train: tuple[Batches, Output], test: tuple[Batches, Output], n_train: int
) -> Iterator[tuple[Tensor | slice, Batch, Output]]:
    """Batches of the training, then of the test examples, with their row numbers among all and
    their output."""
    for (batches, output), offset in ((train, 0), (test, n_train)):
        start = 0
        for batch in batches():
            rows = rows_of(batch, start)
            start += size_of(batch)
            if isinstance(rows, slice):
                yield slice(offset + rows.start, offset + rows.stop), batch, output
            else:
                yield rows + offset, batch, output


def count(batches: Batches) -> int:
    """Number of examples."""
    return sum(size_of(batch) for batch in batches())


def first_examples(batches: Batches) -> Batch:
    """The first `PROOF_EXAMPLES` examples, so that plans do not depend on the batch size.

    They are fewer where a batch is smaller and the next one has texts of another length.
    """
    collected: list[Batch] = []
    found = 0
    for batch in batches():
        part = head(batch, PROOF_EXAMPLES - found)
        if collected and _shapes(part) != _shapes(collected[0]):
            break
        collected.append(part)
        found += size_of(part)
        if found == PROOF_EXAMPLES:
            break
    return {name: torch.cat([batch[name] for batch in collected]) for name in collected[0]}


def _shapes(batch: Batch) -> dict[str, torch.Size]:
    return {name: tensor.shape[1:] for name, tensor in batch.items()}


def _no_factors(
    plan: Plan, layers: Iterable[str], n: int, device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """Zeros for inputs `[n, in]` and output gradients `[n, out]` of the layers."""
    factors = {}
    for path in layers:
        n_out, n_in = plan.shapes[_weight(plan, path)]
        factors[path] = (torch.zeros(n, n_in, device=device), torch.zeros(n, n_out, device=device))
    return factors


def _upper_blocks(n: int) -> Iterator[tuple[slice, slice]]:
    for i in range(0, n, _ROWS):
        for j in range(i, n, _ROWS):
            yield slice(i, min(i + _ROWS, n)), slice(j, min(j + _ROWS, n))


def _keep_at(rows: Tensor | slice, factors: dict[str, tuple[Tensor, Tensor]]) -> Consumer:
    def keep(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
        inputs, gradients = factors[path]
        inputs[rows], gradients[rows] = a.flatten(1), g.flatten(1)

    return keep


def _add_factors(
    kernel: Tensor, cross: Tensor, plan: Plan, factors: dict[str, tuple[Tensor, Tensor]]
) -> None:
    """Add the exact layers' kernel, and free their factors."""
    for path, (a, g) in factors.items():
        check_finite(a, f"layer {path!r}")
        check_finite(g, f"layer {path!r}")
        _add_outer(kernel, cross, a, g, biased=plan.layers[path].bias is not None)
    factors.clear()


def _add_outer(kernel: Tensor, cross: Tensor, a: Tensor, g: Tensor, biased: bool) -> None:
    n = len(kernel)
    one = 1.0 if biased else 0.0
    blocks = [(kernel[i, j], i, j) for i, j in _upper_blocks(n)]
    blocks += [
        (cross[i : i + _ROWS], slice(i, min(i + _ROWS, n)), slice(n, None))
        for i in range(0, n, _ROWS)
    ]
    for block, i, j in blocks:
        similar = a[i] @ a[j].T
        block.addcmul_(similar.add_(one), g[i] @ g[j].T)


def _add_features(kernel: Tensor, cross: Tensor, features: Tensor) -> None:
    n = len(kernel)
    for i, j in _upper_blocks(n):
        kernel[i, j].addmm_(features[i], features[j].T)
    cross.addmm_(features[:n], features[n:].T)
