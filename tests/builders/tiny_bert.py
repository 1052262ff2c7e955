"""A tiny BERT with random weights, saved as Hugging Face's libraries save a fine-tuned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from engine.models.transformers_zoo import transformers
from engine.tasks.tokenizers import train_wordpiece
from tests.builders.sentences import sentences

CLASSES = ("negative", "positive")


def write_tiny_bert(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A BERT of two layers for two classes, its weights, and its tokenizer.

    Args:
        changes: Other keys of its config.
    """
    library = transformers("a test")
    tokenizer = train_wordpiece(sentences(60, 0)["text"], 200)
    vocabulary = json.loads(tokenizer.content)["model"]["vocab"]
    settings: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: number for number, name in enumerate(CLASSES)},
    }
    config = library.BertConfig(**(settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = library.BertForSequenceClassification(config)
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer.content)
    return folder


def write_tokenizer(folder: Path, content: str) -> None:
    """The files of a tokenizer as BERT's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(content)
    special = ("unk", "sep", "pad", "cls", "mask")
    settings: dict[str, Any] = {f"{name}_token": f"[{name.upper()}]" for name in special}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
