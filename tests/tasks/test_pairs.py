"""Pictures with captions: loss, outputs, negatives, retrieval, and exact gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.models import build_model
from engine.models.pairs import pairs_of
from engine.models.transformers_zoo import build_transformer
from engine.store.errors import DataError, SpecError
from engine.tasks import contrastive
from engine.tasks.context import bind
from engine.tasks.contrastive import draw_negatives
from engine.tasks.image_text import TASK, prepare
from engine.tasks.outcomes import RETRIEVAL
from tests.builders.exact_gradients import autograd_rows

N, TOKENS, LONGEST, SIDE = 24, 40, 6, 16
ENCODING: dict[str, Any] = {
    "answer": "pairs",
    "shape": [3, SIDE, SIDE],
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "max_tokens": LONGEST,
    "token_ids": TOKENS,
    "padding": 0,
    "negatives": 15,
    "gallery": 10,
    "inputs": {
        "pixel_values": {"shape": [3, SIDE, SIDE], "dtype": "float32", "start": [], "rest": 0.0},
        "input_ids": {"shape": [LONGEST], "dtype": "int64", "start": [1, 2], "rest": 0},
        "attention_mask": {"shape": [LONGEST], "dtype": "int64", "start": [1, 1], "rest": 0},
    },
}


def arrays(seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    """Encoded pairs; the second has the caption of the first."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, LONGEST + 1, n).astype(np.int32)
    ids = generator.integers(3, TOKENS, (n, LONGEST)).astype(np.int32)
    ids[:, 0] = 1
    ids[np.arange(n), lengths - 1] = 2  # the token that ends a caption
    ids[np.arange(LONGEST) >= lengths[:, None]] = 0
    keys = np.arange(n) + 1000 * seed
    captions = keys.copy()
    ids[1], lengths[1], captions[1] = ids[0], lengths[0], captions[0]
    return {
        "input": generator.integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8),
        "input_ids": ids,
        "length": lengths,
        "picture_key": keys,
        "caption_key": captions,
        "label": np.zeros(n, np.int64),
    }


def clip() -> nn.Module:
    sides = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    words = {"vocab_size": TOKENS, "max_position_embeddings": 12}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = hf.CLIPConfig(
        text_config={**sides, **words, **special},
        vision_config={**sides, "image_size": SIDE, "patch_size": 8},
        projection_dim=8,
    )
    return build_transformer(config.to_dict(), ENCODING, 1, "clip").eval()


def towers(**options: Any) -> nn.Module:
    small = {"width": 4, "caption_width": 8, "dimensions": 6, **options}
    return build_model("two-towers", small, ENCODING, 1, seed=1)


MODELS = {
    "mean of words": towers,
    "transformer": lambda: towers(caption="transformer", heads=2),
    "clip": clip,
}


def batch_of(found: Mapping[str, np.ndarray], rows: slice) -> dict[str, Tensor]:
    raw = {name: torch.from_numpy(array[rows].copy()) for name, array in found.items()}
    return prepare(raw, ENCODING)


def bound(model: nn.Module) -> Any:
    context = contrastive.negatives(prepare)(model, arrays(), ENCODING, 7)
    shown = contrastive.gallery(prepare)(model, arrays(1), ENCODING)
    return bind(TASK, {**context, **shown})


def shaken(model: nn.Module) -> nn.Module:
    """The model with other numbers everywhere: no parameter is 0 or 1, or 1 for all examples."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
            else:
                parameter.fill_(1.3), name
    return model.eval()


@pytest.mark.input_case
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_both_towers_agree_with_autograd(name: str) -> None:
    """Of all three outputs, with a context, the learned temperature included."""
    model = shaken(MODELS[name]())
    task = bound(model)
    batch = batch_of(arrays(), slice(0, 5))
    for output in task.outputs:
        plan = plan_gradients(model, output.value, batch)
        found = per_example_gradients(model, output.value, batch, plan)
        wanted = autograd_rows(model, output.value, batch)
        assert list(found) == list(wanted)
        assert not plan.looped
        for parameter, gradient in found.items():
            largest = max(wanted[parameter].abs().max().item(), 1e-2)
            error = (gradient - wanted[parameter]).abs().max().item()
            assert error <= 2e-5 * largest, (output.name, parameter)
    scale = "logit_scale" if name == "clip" else "temperature.logarithm"
    assert (wanted[scale].abs() > 1e-3).all()
