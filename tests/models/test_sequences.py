"""Models of source and target texts: teacher forcing, and per-example gradients by every rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.projection import check_projection, project
from engine.attribution.trak.summaries import squared_norms
from engine.models import build_model
from engine.models.sequences import SEQUENCES
from engine.models.transformers_zoo import build_sequences
from engine.store.errors import SpecError
from engine.tasks import sequences
from engine.tasks.text_to_text import TASK
from tests.builders.exact_gradients import autograd_rows

Batch = dict[str, torch.Tensor]
TOKENS, SOURCE, TARGET, END = 40, 7, 4, 1


def encoding(tokens: int = TOKENS) -> dict[str, Any]:
    sides = {"input_ids": SOURCE, "attention_mask": SOURCE, "target_ids": TARGET}
    about = {"dtype": "int64", "start": [1], "rest": 0}
    return {
        "answer": SEQUENCES,
        "token_ids": tokens,
        "padding": 0,
        "end": END,
        "max_tokens": SOURCE,
        "max_target_tokens": TARGET,
        "inputs": {
            n: {"shape": [k], **about} for n, k in (*sides.items(), ("target_mask", TARGET))
        },
    }


def examples(n: int, tokens: int = TOKENS, seed: int = 0) -> Batch:
    """A prepared batch of texts of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    arrays = {
        "input_ids": torch.randint(3, tokens, (n, SOURCE), generator=generator),
        "length": torch.tensor([SOURCE - i % 3 for i in range(n)]),
        "target_ids": torch.randint(3, tokens, (n, TARGET), generator=generator),
        "target_length": torch.tensor([TARGET - i % 2 for i in range(n)]),
    }
    for ids, length in (("input_ids", "length"), ("target_ids", "target_length")):
        places = torch.arange(arrays[ids].shape[1])
        arrays[ids] = arrays[ids] * (places < arrays[length][:, None])
    return TASK.prepare(arrays, encoding(tokens))


SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "t5": lambda: hf.T5Config(vocab_size=TOKENS, **SIZES),
    "t5-untied": lambda: hf.T5Config(
        vocab_size=TOKENS, **SIZES, tie_word_embeddings=False, feed_forward_proj="gated-gelu"
    ),
    "mt5": lambda: hf.MT5Config(vocab_size=TOKENS, **SIZES),
    "bart": lambda: hf.BartConfig(
        vocab_size=TOKENS,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=20,
    ),
    "gpt-2": lambda: hf.GPT2Config(
        vocab_size=TOKENS, n_embd=16, n_layer=1, n_head=2, n_positions=20
    ),
    "llama": lambda: hf.LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=20,
    ),
}


def model_of(name: str) -> torch.nn.Module:
    config = CONFIGS[name]().to_dict() | {"model_type": CONFIGS[name]().model_type}
    torch.manual_seed(1)
    model = build_sequences(config, encoding(), name).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 10)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_autograd(name: str) -> None:
    """Of tied embeddings too: one table for encoder, decoder and output."""
    model, batch = model_of(name), examples(6)
    for output in (sequences.log_odds, sequences.trained_log_odds):
        plan = plan_gradients(model, output, batch)
        assert not plan.untapped, "slow: no rule for these"
        found = per_example_gradients(model, output, batch, plan)
        wanted = autograd_rows(model, output, batch)
        assert list(found) == list(wanted)
        largest = max(float(one.abs().max()) for one in wanted.values())
        for key, one in wanted.items():
            torch.testing.assert_close(found[key], one, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_see_the_source_and_the_target_before(name: str) -> None:
    model, batch = model_of(name), examples(4)
    with torch.no_grad():
        before = sequences.logits(model, batch)
        assert before.shape == (4, TARGET, TOKENS)
        changed = {**batch, "target_ids": batch["target_ids"].clone()}
        changed["target_ids"][:, 1] = 5
        after = sequences.logits(model, changed)
        torch.testing.assert_close(after[:, :2], before[:, :2])
        assert (after[:, 2:] - before[:, 2:]).abs().amax((1, 2)).min() > 1e-4
        # Padding changes nothing: the second example alone, as long as it is.
        alone = TASK.prepare(
            {
                "input_ids": batch["input_ids"][1:2, : SOURCE - 1],
                "length": torch.tensor([SOURCE - 1]),
                "target_ids": batch["target_ids"][1:2, : TARGET - 1],
                "target_length": torch.tensor([TARGET - 1]),
            },
            encoding(),
        )
        torch.testing.assert_close(
            sequences.logits(model, alone), before[1:2, : TARGET - 1], rtol=1e-4, atol=1e-4
        )


def test_a_large_tied_table_needs_no_dense_gradient() -> None:
    """30,000 rows of one table: rules and norms agree with autograd, and no array of the examples
    is as large as the table."""
    tokens = 30_000
    model = build_model(
        "t5-small", {"layers": 1, "width": 8, "heads": 2}, encoding(tokens), 1, seed=0
    )
    batch = examples(16, tokens)
    plan = plan_gradients(model, sequences.trained_log_odds, batch)
    largest = _largest(lambda: squared_norms(model, sequences.trained_log_odds, batch, plan))
    assert largest < 16 * tokens * 8, "a dense gradient of each example"
    found = squared_norms(model, sequences.trained_log_odds, batch, plan)
    rows = autograd_rows(model, sequences.trained_log_odds, {n: t[:2] for n, t in batch.items()})
    for name, gradients in rows.items():
        wanted = gradients.double().square().flatten(1).sum(1)
        torch.testing.assert_close(found[name][:2], wanted, rtol=1e-3, atol=1e-9)
    projection = make_projection(plan, model, 1024, None, seed=0)
    assert _largest(lambda: project(model, sequences.trained_log_odds, batch, projection)) < (
        16 * tokens * 8
    )
    check_projection(model, sequences.trained_log_odds, batch, projection)


def _largest(run: Callable[[], Any]) -> int:
    """Numbers of the largest floating-point tensor that is made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Sizes(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                storage = result.untyped_storage().nbytes() // result.element_size()
                Sizes.most = max(Sizes.most, storage)
            return result

    with Sizes():
        run()
    return Sizes.most


def test_a_model_that_generates_nothing_is_refused() -> None:
    config = hf.BertConfig(vocab_size=TOKENS).to_dict() | {"model_type": "vit"}
    with pytest.raises(SpecError, match="is a vit, which does not generate text"):
        build_sequences(config, encoding(), "vit")


def test_too_long_texts_name_the_keys() -> None:
    config = CONFIGS["gpt-2"]().to_dict() | {"model_type": "gpt2", "n_positions": 8}
    with pytest.raises(SpecError, match=r"takes 8 tokens.*lower max_tokens or max_target_tokens"):
        build_sequences(config, encoding(), "gpt")


def test_an_architecture_of_another_kind_is_refused() -> None:
    with pytest.raises(SpecError, match="text-to-text"):
        build_model("t5-small", {}, {"vocabulary": ["a"], "max_tokens": 2}, 2, seed=0)
