"""`mlp`: linear layers with ReLUs on flattened pictures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import Classifier, picture_shape

Width = Annotated[int, Field(ge=1, le=65_536)]


@validate_call
def mlp(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    widths: Annotated[list[Width], Field(max_length=64)] = [256, 128],  # noqa: B006
) -> nn.Module:
    """By default 784-256-128-10 on Fashion-MNIST, which has 235,146 parameters.

    Args:
        encoding: With `shape`.
        n_classes: Number of logits.
        widths: Units of each hidden layer; an empty list makes a linear model.
    """
    channels, height, width = picture_shape(encoding)
    sizes = [channels * height * width, *widths]
    trunk = nn.Sequential(nn.Flatten())
    for n_in, n_out in pairwise(sizes):
        trunk.extend([nn.Linear(n_in, n_out), nn.ReLU()])
    return Classifier(trunk, nn.Linear(sizes[-1], n_classes))


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The widths of weights with these shapes."""
    layers = sum(name.startswith("trunk.") and name.endswith(".weight") for name in shapes)
    return {"widths": [shapes[f"trunk.{2 * layer + 1}.weight"][0] for layer in range(layers)]}
