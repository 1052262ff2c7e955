"""Give a task's record and outputs their context (`Task.context`).

    task = bind(task, {"noise": noise})
    task.model_output(model, batch)          # sees batch["context_noise"]

Batches stay one row an example wherever they are cut, repeated or mapped over; only the functions
that need the context see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from engine.models.calling import CONTEXT
from engine.tasks import ModelOutput, Task

if TYPE_CHECKING:
    from engine.tasks import Batch

Result = TypeVar("Result")


def bind(task: Task, context: Mapping[str, np.ndarray]) -> Task:
    """The task whose record and outputs use this context; the task itself if it is empty."""
    if not context:
        return task
    tensors = {f"{CONTEXT}{name}": torch.from_numpy(np.array(a)) for name, a in context.items()}

    def bound(
        function: Callable[[torch.nn.Module, Batch], Result],
    ) -> Callable[[torch.nn.Module, Batch], Result]:
        def with_context(model: torch.nn.Module, batch: Batch) -> Result:
            device = next(iter(batch.values())).device
            return function(
                model, {**batch, **{name: tensor.to(device) for name, tensor in tensors.items()}}
            )

        return with_context

    def bound_output(output: ModelOutput) -> ModelOutput:
        trained, sample = output.trained, output.sample
        return replace(
            output,
            value=bound(output.value),
            weight=bound(output.weight),
            trained=trained and bound(trained),
            sample=sample and (lambda number: bound(sample(number))),
        )

    make = task.make_output
    return replace(
        task,
        record=bound(task.record),
        outputs=tuple(map(bound_output, task.outputs)),
        matched=task.matched and bound(task.matched),
        make_output=make and (lambda name, numbers: bound_output(make(name, numbers))),
    )
