"""`embedding-bag`: for text, the mean of the token embeddings, then linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import Classifier
from engine.store.errors import SpecError

Width = Annotated[int, Field(ge=1, le=65_536)]
PADDING = 0


class MeanEmbedding(nn.Module):
    """Mean embedding of a text's tokens: `[batch, tokens]` int64 → `[batch, width]`.

    Padding does not count; a text that is all padding gives zeros.
    """

    def __init__(self, n_tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width, padding_idx=PADDING)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        there = (tokens != PADDING).unsqueeze(2)
        total = torch.sum(self.embedding(tokens) * there, dim=1)
        return total / there.sum(1).clamp(min=1)


@validate_call
def embedding_bag(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    width: Width = 64,
    hidden: Width = 64,
) -> nn.Module:
    """Embedding, mean, linear, ReLU, linear.

    Args:
        encoding: With `vocabulary`: the tokens by id, padding first.
        n_classes: Number of logits.
        width: Dimensions of a token's embedding.
        hidden: Units between the embedding and the logits.

    Raises:
        SpecError: The encoding has no vocabulary.
    """
    if "vocabulary" not in encoding:
        raise SpecError("'embedding-bag' is for text; for pictures take 'resnet-small' or 'mlp'.")
    embedding = MeanEmbedding(len(encoding["vocabulary"]), width)
    trunk = nn.Sequential(embedding, nn.Linear(width, hidden), nn.ReLU())
    return Classifier(trunk, nn.Linear(hidden, n_classes))


def options_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The options of weights with these shapes."""
    hidden, width = shapes["trunk.1.weight"]
    return {"width": width, "hidden": hidden}
