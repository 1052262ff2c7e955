"""`t5-small`: a T5 for people without pretrained weights, trained from scratch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, validate_call
from torch import nn

from engine.models.classifier import Activation
from engine.models.transformers_zoo import build_transformer
from engine.store.errors import SpecError

Count = Annotated[int, Field(ge=1, le=96)]
Width = Annotated[int, Field(ge=4, le=8192)]
Share = Annotated[float, Field(ge=0, lt=1)]


@validate_call
def t5_small(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    layers: Count = 2,
    width: Width = 128,
    heads: Count = 4,
    dropout: Share = 0.0,
    activation: Activation = "gelu",
) -> nn.Module:
    """By default 930,000 parameters, and 128 for each token of the vocabulary.

    One table of embeddings serves the encoder, the decoder and the output.

    Args:
        encoding: Of sequences.
        n_classes: Not used.
        layers: Blocks of the encoder, and as many of the decoder.
        width: Dimensions of a token; the layer within a block has four times as many.
        heads: Attention heads of a block; they divide the width.
        dropout: Share of numbers that training leaves out.
        activation: `gelu` makes training smooth, which replay needs.

    Raises:
        SpecError: The encoding is not one of sequences, or the heads do not divide the width.
    """
    if encoding.get("answer") != "sequences":
        raise SpecError("'t5-small' is for source and target texts (the task text-to-text).")
    if width % heads:
        raise SpecError(f"'t5-small': {heads} heads do not divide a width of {width}.")
    config = {
        "model_type": "t5",
        "vocab_size": encoding["token_ids"],
        "d_model": width,
        "d_kv": width // heads,
        "d_ff": 4 * width,
        "num_layers": layers,
        "num_heads": heads,
        "dropout_rate": dropout,
        "feed_forward_proj": activation,
        "pad_token_id": encoding["padding"],
        "decoder_start_token_id": encoding["padding"],
        "eos_token_id": encoding["end"],
    }
    return build_transformer(config, encoding, n_classes, "t5-small")
