"""Small networks of random architecture, with layers of odd shapes."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


def random_network(seed: int, examples: int = 12) -> tuple[nn.Module, Batch]:
    """A network in eval mode with random layers, and standard normal inputs for it."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    if draw.random() < 0.5:
        layers, inputs = _convolutions(draw, examples)
    else:
        layers, inputs = _linears(draw, examples)
    return nn.Sequential(*layers).eval(), {"x": inputs}


def first_output(model: nn.Module, batch: Batch) -> Tensor:
    """The model output that is attributed: the log-odds of the first of three classes."""
    logits = model(batch["x"])
    found: Tensor = logits[:, 0] - logits[:, 1:].logsumexp(1)
    return found


def _convolutions(draw: random.Random, examples: int) -> tuple[list[nn.Module], Tensor]:
    channels, side = draw.choice([1, 2, 3, 5]), draw.choice([5, 6, 7, 9])
    inputs = torch.randn(examples, channels, side, side)
    layers: list[nn.Module] = []
    for _ in range(draw.randint(1, 3)):
        wider = draw.choice([3, 4, 7, 8, 13, 16])
        groups = draw.choice([1, 1, 1, channels]) if wider % channels == 0 else 1
        layers.append(
            nn.Conv2d(
                channels,
                wider,
                draw.choice([1, 2, 3]),
                padding=1,
                stride=draw.choice([1, 2]),
                groups=groups,
                bias=draw.random() < 0.5,
            )
        )
        layers.append(nn.BatchNorm2d(wider) if draw.random() < 0.5 else nn.GroupNorm(1, wider))
        layers.append(draw.choice([nn.Tanh, nn.ReLU, nn.GELU])())
        channels = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]
    return layers, inputs


def _linears(draw: random.Random, examples: int) -> tuple[list[nn.Module], Tensor]:
    tokens, width = draw.choice([1, 1, 3, 4]), draw.choice([2, 3, 5, 11])
    inputs = torch.randn(examples, tokens, width)
    layers: list[nn.Module] = []
    for _ in range(draw.randint(1, 3)):
        wider = draw.choice([3, 5, 7, 17])
        layers.append(nn.Linear(width, wider, bias=draw.random() < 0.5))
        layers.append(draw.choice([nn.LayerNorm, nn.RMSNorm])(wider))
        layers.append(draw.choice([nn.Tanh, nn.ReLU, nn.GELU])())
        width = wider
    layers += [nn.Flatten(), nn.Linear(tokens * width, 3)]
    return layers, inputs
