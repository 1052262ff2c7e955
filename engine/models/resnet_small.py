"""`resnet-small`: the residual network of DESIGN section 6, for small pictures on a CPU."""

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
    head_of,
    picture_shape,
)


class GlobalAverage(nn.Module):
    """Mean over the picture: `[batch, c, h, w]` → `[batch, c]`."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.mean((2, 3))


@validate_call
def resnet_small(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    width: Annotated[int, Field(ge=1, le=1024)] = 16,
    activation: Activation = "relu",
    pooling: Pooling = "max",
    logit_scale: Scale = 1.0,
) -> nn.Module:
    """Five stages, two of them residual: 116,602 parameters for 1 × 28 × 28 and 10 classes.

    Args:
        encoding: With `shape`; pictures of at least 7 × 7 pixels.
        n_classes: Number of logits.
        width: Channels of the first stage; later ones have two and four times as many.
        activation: After each BatchNorm; `gelu` is smooth.
        pooling: Between the stages; `average` is smooth.
        logit_scale: Factor on the logits; below 1 it makes training smoother.
    """
    channels, _, _ = picture_shape(encoding)
    trunk = residual_trunk(channels, width, activation, pooling)
    return Classifier(trunk, head_of(4 * width, n_classes, logit_scale))


def residual_trunk(
    channels: int, width: int, activation: Activation = "relu", pooling: Pooling = "max"
) -> nn.Sequential:
    """The five stages: `[batch, channels, h, w]` → `[batch, 4 · width]`."""
    narrow, wide = 2 * width, 4 * width
    block = functools.partial(convolution, activation=activation)
    return nn.Sequential(
        block(channels, width, stride=2),
        block(width, narrow),
        POOLINGS[pooling](2),
        Residual(block(narrow, narrow), block(narrow, narrow)),
        block(narrow, wide),
        POOLINGS[pooling](2),
        Residual(block(wide, wide), block(wide, wide)),
        GlobalAverage(),
    )


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The width of weights with these shapes."""
    return {"width": shapes["trunk.0.0.weight"][0]}
