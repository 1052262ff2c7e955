"""`resnet9`: the CIFAR network of the TRAK and datamodels experiments (after DAWNBench)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import Classifier, Residual, convolution, picture_shape

Width = Annotated[int, Field(ge=1, le=4096)]


class ScaledGlobalMaximum(nn.Module):
    """.2 × the maximum over the picture: `[batch, c, h, w]` → `[batch, c]`.

    The reference scales the logits by .2. With a head without bias that is the same.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 0.2 * inputs.amax((2, 3))


@validate_call
def resnet9(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    widths: tuple[Width, Width, Width] = (64, 128, 256),
) -> nn.Module:
    """Nine layers, 2.3 M parameters for 3 × 32 × 32 and 10 classes.

    Args:
        encoding: With `shape`; pictures of at least 11 × 11 pixels.
        n_classes: Number of logits.
        widths: Channels of the three stages.
    """
    channels, _, _ = picture_shape(encoding)
    first, second, third = widths
    trunk = nn.Sequential(
        convolution(channels, first),
        convolution(first, second, kernel=5, stride=2, padding=2),
        Residual(convolution(second, second), convolution(second, second)),
        convolution(second, third),
        nn.MaxPool2d(2),
        Residual(convolution(third, third), convolution(third, third)),
        convolution(third, second, padding=0),
        ScaledGlobalMaximum(),
    )
    return Classifier(trunk, nn.Linear(second, n_classes, bias=False))


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The widths of weights with these shapes."""
    return {"widths": [shapes[f"trunk.{stage}.0.weight"][0] for stage in (0, 1, 3)]}
