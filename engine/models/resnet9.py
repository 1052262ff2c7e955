"""`resnet9`: the CIFAR network of the TRAK and datamodels experiments (after DAWNBench)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import (
    POOLINGS,
    Activation,
    Classifier,
    Pooling,
    Residual,
    Scale,
    convolution,
    picture_shape,
)

Width = Annotated[int, Field(ge=1, le=4096)]


class ScaledGlobal(nn.Module):
    """scale × the maximum or mean over the picture: `[batch, c, h, w]` → `[batch, c]`.

    The reference scales the logits. With a head without bias that is the same.
    """

    def __init__(self, pooling: Pooling, scale: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.scale = scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        pooled = inputs.amax((2, 3)) if self.pooling == "max" else inputs.mean((2, 3))
        return self.scale * pooled


@validate_call
def resnet9(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    widths: tuple[Width, Width, Width] = (64, 128, 256),
    activation: Activation = "relu",
    pooling: Pooling = "max",
    logit_scale: Scale = 0.2,
) -> nn.Module:
    """Nine layers, 2.3 M parameters for 3 × 32 × 32 and 10 classes.

    Args:
        encoding: With `shape`; pictures of at least 11 × 11 pixels.
        n_classes: Number of logits.
        widths: Channels of the three stages.
        activation: After each BatchNorm; `gelu` is smooth.
        pooling: Before the last stage and over the picture at the end; `average` is smooth.
        logit_scale: Factor on the logits; a lower one makes training smoother.
    """
    channels, _, _ = picture_shape(encoding)
    first, second, third = widths
    block = functools.partial(convolution, activation=activation)
    trunk = nn.Sequential(
        block(channels, first),
        block(first, second, kernel=5, stride=2, padding=2),
        Residual(block(second, second), block(second, second)),
        block(second, third),
        POOLINGS[pooling](2),
        Residual(block(third, third), block(third, third)),
        block(third, second, padding=0),
        ScaledGlobal(pooling, logit_scale),
    )
    return Classifier(trunk, nn.Linear(second, n_classes, bias=False))


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The widths of weights with these shapes."""
    return {"widths": [shapes[f"trunk.{stage}.0.weight"][0] for stage in (0, 1, 3)]}
