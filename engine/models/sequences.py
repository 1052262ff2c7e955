"""Models of sequences: a source text in, a distribution over each token of a target text out.

A model of sequences takes, by these names,

    input_ids, attention_mask      [b, source]   the source's tokens, padded at the end
    target_ids, target_mask        [b, target]   the target's, its end token among them

and returns logits `[b, target, vocabulary]`: row t is for target token t, from the source and the
target tokens before t (teacher forcing). Logits behind the end of a target mean nothing.

The mixins here give transformers' own classes this form. An encoder-decoder reads the target
shifted by one; a decoder-only model reads source and target as one text, and what it predicts
within the source is left out.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.answers import described, logits_of
from engine.models.classifier import Embeds
from engine.store.errors import SpecError

SEQUENCES = "sequences"
"""Value of the key `answer` of an encoding for models of sequences."""


def check_sequences(architecture: str, answer: Any, inputs: Mapping[str, Tensor]) -> None:
    """Raise SpecError if an architecture does not give logits for each target token."""
    try:
        logits = logits_of(answer)
    except SpecError as error:
        raise SpecError(f"architecture {architecture!r}: {error}") from error
    wanted = tuple(inputs["target_ids"].shape)
    if logits.ndim != 3 or logits.shape[:2] != wanted or not logits.is_floating_point():
        raise SpecError(
            f"architecture {architecture!r} gives {described(answer)} for two examples; a model of "
            f"sequences must give logits [2, {wanted[1]} target tokens, vocabulary]."
        )


class _Sequences(Embeds):
    """What both kinds share: the embedding of an example is the mean of the states that its logits
    follow from."""

    def embed_and_answer(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor | None, Any]:
        assert isinstance(self, nn.Module)
        head = self.get_output_embeddings()  # type: ignore[operator]
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            answer = self(*inputs, **named)
        finally:
            handle.remove()
        states, mask = seen[-1], named["target_mask"]
        if states.shape[1] != mask.shape[1]:  # source and target as one text
            mask = torch.cat([named["attention_mask"], mask[:, :-1]], 1)
        there = mask[..., None].to(states.dtype)
        return (states * there).sum(1) / there.sum(1).clamp(min=1), answer


class _EncoderDecoder(_Sequences):
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, target_ids: Tensor, target_mask: Tensor
    ) -> Tensor:
        start = self.config.decoder_start_token_id  # type: ignore[attr-defined]
        first = torch.full_like(target_ids[:, :1], start)
        answer: Any = super().forward(  # type: ignore[misc]
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=torch.cat([first, target_ids[:, :-1]], 1),
            use_cache=False,
        )
        logits: Tensor = answer.logits
        return logits


class _DecoderOnly(_Sequences):
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, target_ids: Tensor, target_mask: Tensor
    ) -> Tensor:
        mask = torch.cat([attention_mask, target_mask[:, :-1]], 1)
        named = {"input_ids": torch.cat([input_ids, target_ids[:, :-1]], 1), "attention_mask": mask}
        own_class: Any = type(self)
        if _takes_positions(own_class):
            named["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        answer: Any = super().forward(**named, use_cache=False)  # type: ignore[misc]
        logits: Tensor = answer.logits
        # The source's last token predicts the target's first one; padding is between them.
        last = (attention_mask.sum(1) - 1)[:, None, None].expand(-1, 1, logits.shape[-1])
        return torch.cat([logits.gather(1, last), logits[:, input_ids.shape[1] :]], 1)


@functools.cache
def _takes_positions(model_class: Any) -> bool:
    return any(
        "position_ids" in inspect.signature(one.forward).parameters
        for one in model_class.__mro__
        if "forward" in vars(one)
    )


@functools.cache
def sequences_class(model_class: Any, encoder_decoder: bool) -> Any:
    """A class of transformers in the form of a model of sequences."""
    mixin = _EncoderDecoder if encoder_decoder else _DecoderOnly
    return type(model_class.__name__, (mixin, model_class), {"__module__": __name__})


def keep_biases_apart(model: nn.Module) -> None:
    """Let T5's relative position biases be one table for each example, too.

    They are looked up once for a whole batch. Per-example gradients need them repeated for each
    example, which the library's own `compute_bias` does not take.
    """
    for module in model.modules():
        if hasattr(module, "relative_attention_bias") and hasattr(module, "compute_bias"):
            object.__setattr__(module, "compute_bias", types.MethodType(_bias, module))


def _bias(
    attention: Any,
    query_length: int,
    key_length: int,
    device: Any = None,
    past_seen_tokens: int = 0,
) -> Tensor:
    """`[1 or batch, heads, queries, keys]`."""
    table = attention.relative_attention_bias
    device = table.weight.device if device is None else device
    queries = torch.arange(query_length, device=device)[:, None] + past_seen_tokens
    buckets = attention._relative_position_bucket(
        torch.arange(key_length, device=device)[None] - queries,
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    values: Tensor = table(buckets).movedim(-1, -3)
    return values if values.ndim == 4 else values[None]
