"""`bert-small`: a BERT for people without pretrained weights, trained from scratch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, validate_call
from torch import nn

from engine.models.transformers_zoo import build_transformer
from engine.store.errors import SpecError

Count = Annotated[int, Field(ge=1, le=96)]
Width = Annotated[int, Field(ge=4, le=8192)]
Share = Annotated[float, Field(ge=0, lt=1)]


@validate_call
def bert_small(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    layers: Count = 4,
    width: Width = 256,
    heads: Count = 4,
    dropout: Share = 0.1,
) -> nn.Module:
    """By default 3.2 million parameters, and 256 for each token of the vocabulary.

    Args:
        encoding: With a tokenizer, such as `wordpiece`.
        n_classes: Number of logits.
        layers: Transformer blocks.
        width: Dimensions of a token; the layer within a block has four times as many.
        heads: Attention heads of a block; they divide the width.
        dropout: Share of numbers that training leaves out.

    Raises:
        SpecError: The encoding has no tokenizer, or the heads do not divide the width.
    """
    if "token_ids" not in encoding:
        raise SpecError(
            "'bert-small' is for texts that a tokenizer reads: set tokenizer = \"wordpiece\" under "
            "[task]."
        )
    if width % heads:
        raise SpecError(f"'bert-small': {heads} heads do not divide a width of {width}.")
    config = {
        "model_type": "bert",
        "vocab_size": encoding["token_ids"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "max_position_embeddings": encoding["max_tokens"],
        "type_vocab_size": 1,
        "pad_token_id": encoding["padding"],
    }
    return build_transformer(config, encoding, n_classes, "bert-small")
