"""`mlp`: linear layers with activations on flattened pictures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import (
    ACTIVATIONS,
    Activation,
    Classifier,
    Scale,
    head_of,
    picture_shape,
)

Width = Annotated[int, Field(ge=1, le=65_536)]


@validate_call
def mlp(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    widths: Annotated[list[Width], Field(max_length=64)] = [256, 128],  # noqa: B006
    activation: Activation = "relu",
    logit_scale: Scale = 1.0,
) -> nn.Module:
    """By default 784-256-128-10 on Fashion-MNIST, which has 235,146 parameters.

    Args:
        encoding: With `shape`.
        n_classes: Number of logits.
        widths: Units of each hidden layer; an empty list makes a linear model.
        activation: After each hidden layer; `gelu` is smooth.
        logit_scale: Factor on the logits; below 1 it makes training smoother.
    """
    channels, height, width = picture_shape(encoding)
    sizes = [channels * height * width, *widths]
    trunk = nn.Sequential(nn.Flatten())
    for n_in, n_out in pairwise(sizes):
        trunk.extend([nn.Linear(n_in, n_out), ACTIVATIONS[activation]()])
    return Classifier(trunk, head_of(sizes[-1], n_classes, logit_scale))


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The widths of weights with these shapes."""
    layers = sum(name.startswith("trunk.") and name.endswith(".weight") for name in shapes)
    return {"widths": [shapes[f"trunk.{2 * layer + 1}.weight"][0] for layer in range(layers)]}
