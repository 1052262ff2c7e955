"""What the built-in classifiers share: penultimate features, then a linear head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.store.errors import SpecError

Activation = Literal["relu", "gelu"]
Pooling = Literal["max", "average"]
"""The smooth ones, `gelu` and `average`, make trainings whose derivative (replay) predicts more."""
Scale = Annotated[float, Field(gt=0, le=1000)]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}
POOLINGS: dict[Pooling, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class Classifier(nn.Module):
    """A trunk that embeds an input, and a head that maps the embedding to logits.

    Attributes:
        trunk: Inputs → `[batch, d]`.
        head: `[batch, d]` → `[batch, n_classes]`.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the penultimate features, `[batch, d]`."""
        return self.trunk(inputs)  # type: ignore[no-any-return]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(inputs))  # type: ignore[no-any-return]


class Embeds:
    """Base of models that give the embeddings of a batch in the pass that answers it."""

    def embed_and_answer(
        self, *inputs: torch.Tensor, **named: torch.Tensor
    ) -> tuple[torch.Tensor | None, Any]:
        """Penultimate features `[batch, d]`, and what the model returns."""
        raise NotImplementedError


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.branch(inputs)  # type: ignore[no-any-return]


class ScaledLinear(nn.Linear):
    """A linear layer whose outputs are multiplied by a constant."""

    scale: float = 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.scale


def head_of(width: int, n_classes: int, scale: float, bias: bool = True) -> nn.Linear:
    """The head of a classifier, whose logits are multiplied by `scale`."""
    if scale == 1:
        return nn.Linear(width, n_classes, bias)
    head = ScaledLinear(width, n_classes, bias)
    head.scale = scale
    return head


def convolution(
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    activation: Activation = "relu",
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, activation."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
        ACTIVATIONS[activation](),
    )


def picture_shape(encoding: dict[str, Any]) -> tuple[int, int, int]:
    """Return (channels, height, width), or raise SpecError if inputs are not pictures."""
    if "shape" not in encoding:
        raise SpecError("this architecture is for pictures; for text take 'embedding-bag'.")
    channels, height, width = encoding["shape"]
    return int(channels), int(height), int(width)
