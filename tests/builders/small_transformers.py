"""Tiny transformers with random weights, and batches as their tokenizers would give them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf
from torch import Tensor, nn

from engine.models.calling import call

CLASSES, TOKENS, LONGEST = 3, 50, 7
LAST = 2
"""The token that ends every text; BART predicts from its state."""
_WORDS = {
    "vocab_size": TOKENS,
    "max_position_embeddings": 40,
    "num_labels": CLASSES,
    "pad_token_id": 0,
}
_BLOCKS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_TEXT = {**_WORDS, **_BLOCKS}
_PICTURES = {
    **_BLOCKS,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 2,
    "num_labels": CLASSES,
}


def bert(**options: object) -> nn.Module:
    return hf.BertForSequenceClassification(hf.BertConfig(**{**_TEXT, **options}))


TEXT_MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "bert-eager-attention": lambda: bert(attn_implementation="eager"),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(**_WORDS, dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    ),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**_TEXT)),
    "albert": lambda: hf.AlbertForSequenceClassification(
        hf.AlbertConfig(**_TEXT, embedding_size=8)  # one layer used twice
    ),
    "gpt-2": lambda: hf.GPT2ForSequenceClassification(
        hf.GPT2Config(
            vocab_size=TOKENS,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=40,
            num_labels=CLASSES,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
    "llama": lambda: hf.LlamaForSequenceClassification(
        hf.LlamaConfig(**_TEXT, num_key_value_heads=1)
    ),
    "bart": lambda: hf.BartForSequenceClassification(  # embeddings in classes of their own
        hf.BartConfig(
            **_WORDS,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            bos_token_id=1,
            eos_token_id=LAST,
        )
    ),
    "opt": lambda: hf.OPTForSequenceClassification(
        hf.OPTConfig(
            **_WORDS,
            hidden_size=16,
            word_embed_proj_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=24,
        )
    ),
}
PICTURE_MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**_PICTURES)),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**_PICTURES)),
}


def build(name: str) -> nn.Module:
    """A model in eval mode whose biases and norms are random, too."""
    torch.manual_seed(0)
    model = (TEXT_MODELS | PICTURE_MODELS)[name]().eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 10)
    return model


def texts(n: int, types: bool = False, longest: int = LONGEST) -> dict[str, Tensor]:
    """Token ids, padded at the end, with masks and labels; every third text is the longest."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([max(3, longest - 2 * (i % 3)) for i in range(n)])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    batch = {
        "input_ids": torch.randint(3, TOKENS, (n, longest), generator=generator) * mask,
        "attention_mask": mask,
    }
    batch["input_ids"][torch.arange(n), lengths - 1] = LAST
    if types:
        batch["token_type_ids"] = (torch.arange(longest) > 2).long() * mask
    return {**batch, "label": torch.randint(CLASSES, (n,), generator=generator)}


def pictures(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(n, 2, 8, 8, generator=generator),
        "label": torch.randint(CLASSES, (n,), generator=generator),
    }


def margin(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The margin of the label, computed like the task's."""
    logits = call(model, batch).logits
    own = nn.functional.one_hot(batch["label"], CLASSES).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(1)
