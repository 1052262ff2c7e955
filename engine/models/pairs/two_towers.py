"""`two-towers`: a small model of pictures with captions, trained from scratch.

A residual network embeds pictures, a mean of word embeddings or a small transformer embeds
captions, and a learned temperature scales their similarities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import ACTIVATIONS, Activation, Pooling, picture_shape
from engine.models.resnet_small import residual_trunk
from engine.store.errors import SpecError

Width = Annotated[int, Field(ge=1, le=8192)]
FIRST_SCALE, MOST_SCALE = 10.0, 100.0
"""The factor of similarities at the start of training, and the largest that is used."""


class Temperature(nn.Module):
    """A learned factor of similarities; its logarithm is trained, so it stays above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(self) -> torch.Tensor:
        return self.logarithm.clamp(max=math.log(MOST_SCALE)).exp()


class MeanOfTokens(nn.Module):
    """Mean embedding of the tokens that are no padding, and what a linear layer and an activation
    add to it."""

    def __init__(self, n_tokens: int, width: int, activation: Activation) -> None:
        super().__init__()
        self.tokens = nn.Embedding(n_tokens, width)
        self.mix = nn.Sequential(nn.Linear(width, width), ACTIVATIONS[activation]())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mean = mean_of_tokens(self.tokens(input_ids), attention_mask)
        return self.mix(mean) + mean  # type: ignore[no-any-return]


class Block(nn.Module):
    """A block of a transformer: attention, then two linear layers, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mix = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        parts = self.attend(self.before_attention(states)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        similar = query @ key.mT * query.shape[-1] ** -0.5 + masked
        joined = (similar.softmax(-1) @ value).transpose(1, 2).flatten(2)
        states = states + self.join(joined)
        mixed = nn.functional.gelu(self.widen(self.before_mix(states)))
        return states + self.narrow(mixed)  # type: ignore[no-any-return]


class SmallTransformer(nn.Module):
    """Embeddings of tokens and of their places, blocks, and the mean over the tokens."""

    def __init__(self, n_tokens: int, longest: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(n_tokens, width), nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = self.tokens(input_ids) + self.places(places)
        masked = (1.0 - attention_mask[:, None, None].to(states.dtype)) * -1e4
        for block in self.blocks:
            states = block(states, masked)
        return mean_of_tokens(self.norm(states), attention_mask)


def mean_of_tokens(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are no padding, `[batch, width]`."""
    there = attention_mask[..., None].to(states.dtype)
    return (states * there).sum(1) / there.sum(1).clamp(min=1)


class TwoTowers(nn.Module):
    """Two towers, their projections into one space, and the temperature."""

    def __init__(self, picture: nn.Module, caption: nn.Module, widths: tuple[int, int, int]):
        super().__init__()
        self.picture, self.caption = picture, caption
        self.picture_head = nn.Linear(widths[0], widths[2], bias=False)
        self.caption_head = nn.Linear(widths[1], widths[2], bias=False)
        self.temperature = Temperature()

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pictures = self.picture_head(self.picture(pixel_values))
        captions = self.caption_head(self.caption(input_ids, attention_mask))
        return pictures, captions, self.temperature()


@validate_call
def two_towers(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    width: Annotated[int, Field(ge=1, le=1024)] = 16,
    caption: Literal["mean", "transformer"] = "mean",
    caption_width: Width = 64,
    layers: Annotated[int, Field(ge=1, le=48)] = 2,
    heads: Annotated[int, Field(ge=1, le=64)] = 4,
    dimensions: Width = 64,
    activation: Activation = "relu",
    pooling: Pooling = "max",
) -> nn.Module:
    """By default 120,000 parameters, and 64 for each word of the vocabulary.

    Args:
        encoding: Of pictures with captions; pictures have at least 7 × 7 pixels.
        n_classes: Not used: a model of pairs has no logits.
        width: Channels of the first stage of the pictures' network, as of `resnet-small`.
        caption: How captions are embedded: the `mean` of the words, or a `transformer`.
        caption_width: Dimensions of a token.
        layers, heads: Of the transformer.
        dimensions: Of the space that both are embedded in.
        activation, pooling: As of `resnet-small`; `gelu` and `average` make training smooth.

    Raises:
        SpecError: The encoding is not one of pairs, or the heads do not divide the width.
    """
    if encoding.get("answer") != "pairs":
        raise SpecError("'two-towers' is for pictures with captions (the task image-text).")
    channels, _, _ = picture_shape(encoding)
    tokens = encoding.get("token_ids") or len(encoding["vocabulary"])
    if caption == "mean":
        text: nn.Module = MeanOfTokens(tokens, caption_width, activation)
    elif caption_width % heads:
        raise SpecError(f"'two-towers': {heads} heads do not divide a width of {caption_width}.")
    else:
        text = SmallTransformer(tokens, encoding["max_tokens"], caption_width, layers, heads)
    picture = residual_trunk(channels, width, activation, pooling)
    return TwoTowers(picture, text, (4 * width, caption_width, dimensions))


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The options of weights with these shapes; heads leave no trace, and are the default."""
    dimensions, caption_width = shapes["caption_head.weight"]
    found = {
        "width": shapes["picture.0.0.weight"][0],
        "caption_width": caption_width,
        "dimensions": dimensions,
    }
    if "caption.mix.0.weight" in shapes:
        return found
    layers = sum(name.endswith("attend.weight") for name in shapes)
    return {**found, "caption": "transformer", "layers": layers}
