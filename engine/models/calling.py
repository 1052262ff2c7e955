"""Call a model with the inputs in a prepared batch.

    call(model, {"input": pixels, "label": labels})      # model(pixels)
    call(model, {"input_ids": ids, "attention_mask": mask, "label": labels})
                                                 # model(input_ids=ids, attention_mask=mask)

A batch also holds what the loss and the model outputs need: the labels, and the task's context, in
tensors whose names begin with `context_`. Everything else is an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

LABEL = "label"
CONTEXT = "context_"
WEIGHTS = "context_weights"
"""Name of the tensor `[batch]` with the weights that examples have in the loss of their batch, for
a loss in which examples meet. It is there only where weights are not all 1, or derivatives by them
are wanted."""

DRAWS_FROM = "context_draws_from"
"""Name of the int64 tensor `[batch]` with one number of a training and its epoch, for a loss that
draws. What an example draws should follow from it and from the example alone: then it is the same
without some of the others. Where it is missing, the loss draws as it likes."""


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a batch that the model takes, by name."""
    return {
        name: tensor
        for name, tensor in batch.items()
        if name != LABEL and not name.startswith(CONTEXT)
    }


def call(model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """What the model returns: one input named `input` goes by position, others by keyword."""
    inputs = inputs_of(batch)
    if list(inputs) == ["input"]:
        return model(inputs["input"])
    return model(**inputs)
