"""Model outputs in mixed precision: layers compute in bfloat16, gradients arrive in float32.

Only what is attributed is computed so. Predictions, records and Q keep the model's own precision,
and so does everything after the gradients: projections, Gram matrices and solves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from engine.tasks import ModelOutput, Task

if TYPE_CHECKING:
    from engine.attribution.trak.solver import Precision
    from engine.tasks import Batch


def in_precision(task: Task, precision: Precision) -> Task:
    """The task whose model outputs are computed in a precision; the task itself for `float32`."""
    if precision == "float32":
        return task

    def rounded(
        value: Callable[[torch.nn.Module, Batch], torch.Tensor],
    ) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
        def of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            device = next(model.parameters()).device.type
            # The cache would keep rounded weights, which a later call with others must not see.
            with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False):
                return value(model, batch).float()

        return of

    def output_of(output: ModelOutput) -> ModelOutput:
        trained, sample = output.trained, output.sample
        return replace(
            output,
            value=rounded(output.value),
            trained=trained and rounded(trained),
            sample=sample and (lambda number: rounded(sample(number))),
        )

    make = task.make_output
    return replace(
        task,
        outputs=tuple(map(output_of, task.outputs)),
        make_output=make and (lambda name, numbers: output_of(make(name, numbers))),
    )
