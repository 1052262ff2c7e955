"""What is asked: outputs of the trained model, or linear combinations of them, as adjoints."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.attribution.replay.adjoints import Adjoints
from engine.attribution.replay.statistics import counting_layers, inputs_seen, pull_back_use
from engine.attribution.replay.training import Training
from engine.attribution.replay.updates import moments_of

Batch = dict[str, Tensor]


def adjoints_of(
    training: Training,
    output: Callable[[nn.Module, Batch], Tensor],
    batch: Batch,
    combinations: Tensor | None = None,
) -> tuple[Adjoints, Tensor]:
    """Derivatives of a trained model's outputs, where the walk back starts.

    Args:
        training: At its end; the model's mode is put back.
        output: (model in eval mode, prepared batch) → `[batch]`. Its context is taken as fixed.
        batch: Of test examples.
        combinations: `[queries, batch]`: each query is the sum of the outputs with these weights.
            None: each output is a query.

    Returns:
        The adjoints of the queries, and the queries' values `[queries]`.
    """
    model = training.model
    modes = [(module, module.training) for module in model.modules()]
    layers = counting_layers(model)
    try:
        model.eval()
        with torch.enable_grad(), inputs_seen(layers) as seen:
            outputs = output(model, batch)
            values = outputs if combinations is None else combinations.to(outputs) @ outputs
    finally:
        for module, mode in modes:
            module.training = mode
    used = [tensor for layer in layers for tensor in seen[layer]]
    wanted = [*training.trained, *used]
    found: list[list[Tensor]] = [[] for _ in wanted]
    for value in values:
        parts = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
        for column, part, tensor in zip(found, parts, wanted, strict=True):
            column.append(torch.zeros_like(tensor) if part is None else part)
    stacked = [torch.stack(column).detach() for column in found]
    parameters, rest = stacked[: len(training.trained)], stacked[len(training.trained) :]
    running = []
    for layer in layers:
        count = len(seen[layer])
        running.append(pull_back_use(layer, seen[layer], rest[:count], len(values)))
        rest = rest[count:]
    moments = [
        {name: torch.zeros_like(one) for name in moments_of(update)}
        for one, update in zip(parameters, training.updates(), strict=True)
    ]
    return Adjoints(parameters, moments, running), values.detach()
