"""`transformers:FOLDER`: the architecture of a model that Hugging Face's transformers saved.

The weights keep transformers' names, so that checkpoints made with it fit. Only classes of the
library itself are made: no code of a folder is run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.models.classifier import Embeds
from engine.models.hf_folder import CONFIG, TRANSFORMERS, library_named, reason_of, stored_config
from engine.models.pairs import ANSWER, PAIRS
from engine.models.sequences import SEQUENCES, keep_biases_apart, sequences_class
from engine.store.errors import SpecError
from engine.store.text import counted

_NOT_OF_AN_ARCHITECTURE = (
    *("id2label", "label2id", "num_labels", "problem_type", "dtype", "torch_dtype"),
    *("_name_or_path", "transformers_version", "_attn_implementation", "attn_implementation"),
)
TEXT_PART, PICTURE_PART = "text_config", "vision_config"
"""Keys of a config with both towers of a model of pictures and captions."""


def transformers(what: str) -> Any:
    """The package transformers, which then prints nothing.

    Raises:
        SpecError: It is not installed; `what` needs it.
    """
    library = library_named(TRANSFORMERS, what)
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return library


def architecture_of(name: str, study: Path | None) -> Callable[..., nn.Module]:
    """The architecture function of `transformers:NAME` in a study."""

    def build(encoding: dict[str, Any], n_classes: int, *, pretrained: bool = True) -> nn.Module:
        """Build it with random weights; `pretrained` says whether training starts from its own."""
        if not isinstance(pretrained, bool):
            raise SpecError(f"option pretrained = {pretrained!r} must be true or false.")
        return build_transformer(
            stored_config(TRANSFORMERS, name, study), encoding, n_classes, name
        )

    return build


def build_transformer(
    config: Mapping[str, Any], encoding: dict[str, Any], n_classes: int, name: str
) -> nn.Module:
    """A classifier, or a model of pairs or of sequences, with random weights.

    Args:
        config: As in config.json.
        encoding: With `shape` for pictures, with a tokenizer, or both for pairs.
        n_classes: Number of logits.
        name: For messages.

    Raises:
        SpecError: The architecture is not of this kind, or does not fit the encoding.
    """
    if encoding.get(ANSWER) == PAIRS:
        return build_clip(config, encoding, name)
    if encoding.get(ANSWER) == SEQUENCES:
        return build_sequences(config, encoding, name)
    pictures = "shape" in encoding
    made, model_class = _classes(config, pictures, name)
    made.num_labels = n_classes
    if hasattr(made, "use_cache"):
        made.use_cache = False
    if not pictures:
        _check_tokens(config, encoding, "text", name)
        if getattr(made, "pad_token_id", None) is None:
            made.pad_token_id = encoding["padding"]
    any_class: Any = model_class  # mypy takes the type of a module for one without a hash
    model: nn.Module = _embedding(any_class)(made)
    return model


def _check_tokens(
    config: Mapping[str, Any], encoding: Mapping[str, Any], what: str, name: str
) -> None:
    """Raise SpecError if a model cannot read the tokens of a study's texts.

    Args:
        what: What the texts are, singular.
    """
    if "token_ids" not in encoding:
        raise SpecError(
            f"'transformers:{name}' reads the tokens of its own tokenizer, and this study's "
            f"{what}s are split into words: remove `tokenizer` under [task], or name the folder "
            "there."
        )
    check_vocabulary(config, encoding["token_ids"], name)
    most = longest_input(config, name)
    if encoding["max_tokens"] > most:
        raise SpecError(
            f"'transformers:{name}' takes {most:,} tokens, and this study reads "
            f"{encoding['max_tokens']:,} of each {what}: set max_tokens = {most} under [task]."
        )


def _classes(config: Mapping[str, Any], pictures: bool, name: str) -> tuple[Any, Any]:
    """A config as an object, and the class of its classifier."""
    library = transformers(f"architecture 'transformers:{name}'")
    kind, made = config["model_type"], config_object(config, name)
    auto = library.models.auto.modeling_auto
    if pictures:
        mapping, what = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, "pictures"
    else:
        mapping, what = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "texts"
    head = "ForImageClassification" if pictures else "ForSequenceClassification"
    saved = [str(one) for one in config.get("architectures") or ()]
    both_sides = getattr(made, "is_encoder_decoder", False)
    if type(made) not in mapping or (both_sides and not any(one.endswith(head) for one in saved)):
        raise SpecError(
            f"{name} is a {saved[0] if saved else kind} ({kind}), which does not classify {what}: "
            f"a model of transformers with a {head} class is needed."
        )
    found = mapping[type(made)]
    chosen = found[0] if isinstance(found, (tuple, list)) else found
    return made, chosen


def config_object(config: Mapping[str, Any], name: str) -> Any:
    """A config as an object of the library.

    Raises:
        SpecError: The library does not know its model_type, or cannot use it.
    """
    library = transformers(f"architecture 'transformers:{name}'")
    kind = config["model_type"]
    try:
        config_class = library.models.auto.configuration_auto.CONFIG_MAPPING[kind]
    except KeyError as error:
        raise SpecError(
            f"{name}: transformers {library.__version__} has no model_type {kind!r}. Install a "
            "version that has it."
        ) from error
    kept = {key: value for key, value in config.items() if key not in _NOT_OF_AN_ARCHITECTURE}
    try:
        return config_class.from_dict(json.loads(json.dumps(kept)))
    except Exception as error:  # whatever is checked there
        reason = reason_of(error)
        raise SpecError(f"{name}: its {CONFIG} cannot be used: {reason}.") from error


def build_clip(config: Mapping[str, Any], encoding: dict[str, Any], name: str) -> nn.Module:
    """A model of pictures with captions as CLIP, with random weights.

    Raises:
        SpecError: It is not of this kind, or does not fit the encoding.
    """
    library, made = transformers(name), config_object(config, name)
    model_class = library.models.auto.modeling_auto.MODEL_MAPPING.get(type(made), None)
    model_class = model_class[0] if isinstance(model_class, (tuple, list)) else model_class
    if not {TEXT_PART, PICTURE_PART} <= {*config} or not hasattr(made, "logit_scale_init_value"):
        raise SpecError(
            f"{name} is a {config['model_type']}, which has no towers for pictures and captions "
            "with a contrastive loss: a model such as CLIP is needed."
        )
    _check_tokens(config, encoding, "caption", name)
    model: nn.Module = _paired(model_class)(made)
    return model


@functools.cache
def _paired(model_class: Any) -> Any:
    """The class, with an answer that `engine.models.pairs` reads."""
    return type(model_class.__name__, (_WithScale, model_class), {"__module__": __name__})


class _WithScale:
    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        answer: Any = super().forward(  # type: ignore[misc]
            input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask
        )
        scale: torch.Tensor = self.logit_scale  # type: ignore[attr-defined]
        return answer.image_embeds, answer.text_embeds, scale.exp()


def build_sequences(config: Mapping[str, Any], encoding: dict[str, Any], name: str) -> nn.Module:
    """A model of source and target texts (`engine.models.sequences`), with random weights.

    Raises:
        SpecError: It does not generate text, or does not fit the encoding.
    """
    made, model_class, both_sides = _generator(config, name)
    made.use_cache = False
    check_vocabulary(config, encoding["token_ids"], name)
    most, needed = longest_sequences(config, name), encoding["max_target_tokens"]
    needed = max(needed, encoding["max_tokens"]) if both_sides else needed + encoding["max_tokens"]
    if needed > most:
        raise SpecError(
            f"{name} takes {most:,} tokens, and this study reads {encoding['max_tokens']:,} of "
            f"each source and {encoding['max_target_tokens']:,} of each target: lower max_tokens "
            "or max_target_tokens under [task]."
        )
    if both_sides and getattr(made, "decoder_start_token_id", None) is None:
        made.decoder_start_token_id = encoding["padding"]
    model: nn.Module = sequences_class(model_class, both_sides)(made)
    keep_biases_apart(model)
    return model


def _generator(config: Mapping[str, Any], name: str) -> tuple[Any, Any, bool]:
    """A config as an object, the class that generates text, and whether it has an encoder."""
    library, made = transformers(name), config_object(config, name)
    auto = library.models.auto.modeling_auto
    both_sides = reads_apart(config, name)
    mapping = (
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        if both_sides
        else auto.MODEL_FOR_CAUSAL_LM_MAPPING
    )
    if type(made) not in mapping:
        raise SpecError(
            f"{name} is a {config['model_type']}, which does not generate text: a model such as T5 "
            "or GPT-2 is needed."
        )
    found = mapping[type(made)]
    return made, found[0] if isinstance(found, (tuple, list)) else found, both_sides


def reads_apart(config: Mapping[str, Any], name: str) -> bool:
    """Whether a model has an encoder for the source and a decoder for the target, as T5."""
    return bool(getattr(config_object(config, name), "is_encoder_decoder", False))


def longest_sequences(config: Mapping[str, Any], name: str) -> int:
    """The most tokens that a model which generates text takes: of source or target where it reads
    them apart, else of both together."""
    made = config_object(config, name)
    if hasattr(made, "relative_attention_num_buckets"):
        return _NO_LIMIT  # T5's positions are relative
    stated = getattr(made, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else _NO_LIMIT


def check_vocabulary(config: Mapping[str, Any], token_ids: int, name: str) -> None:
    """Raise SpecError if a model has no embedding for some token of a tokenizer."""
    if TEXT_PART in config:
        size = config_object(config, name).text_config.vocab_size
    else:
        size = config.get("vocab_size")
    if isinstance(size, int) and token_ids > size:
        raise SpecError(
            f"{name} has embeddings of {counted(size, 'token')}, and the tokenizer has "
            f"{token_ids:,}: it belongs to another model. Copy the model's own tokenizer files."
        )


def longest_input(config: Mapping[str, Any], name: str) -> int:
    """The most tokens that a model of texts takes.

    Some architectures (RoBERTa's) count positions from the padding's number on, so the number in
    their config is too large.

    Raises:
        SpecError: The config is not of a model of texts.
    """
    if TEXT_PART in config:
        return max(1, int(config_object(config, name).text_config.max_position_embeddings))
    made, model_class = _classes(config, False, name)
    limits = [_NO_LIMIT]
    stated = getattr(made, "max_position_embeddings", None)
    if isinstance(stated, int) and stated > 0:
        limits.append(stated)
    try:
        with torch.device("meta"):
            model = model_class(made)
    except Exception as error:  # sizes that do not fit together
        reason = reason_of(error)
        raise SpecError(f"{name}: its {CONFIG} cannot be used: {reason}.") from error
    for path, module in model.named_modules():
        last = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and last in ("position_embeddings", "embed_positions"):
            skipped = getattr(module, "offset", None)
            if skipped is None:
                skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - int(skipped))
    return max(1, min(limits))


_NO_LIMIT = 100_000


@functools.cache
def _embedding(model_class: Any) -> Any:
    """The class, with the embeddings that its head gets."""
    return type(model_class.__name__, (model_class, _WithEmbeddings), {"__module__": __name__})


class _WithEmbeddings(Embeds):
    def embed_and_answer(
        self, *inputs: torch.Tensor, **named: torch.Tensor
    ) -> tuple[torch.Tensor | None, Any]:
        assert isinstance(self, nn.Module)
        seen: list[torch.Tensor] = []
        handle = head_of(self).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            answer = self(*inputs, **named)
        finally:
            handle.remove()
        if not seen:
            return None, answer
        found = seen[-1]
        if found.ndim == 3:  # a head at every token: the mean over those that are no padding
            mask = named.get("attention_mask")
            there = torch.ones_like(found[..., :1]) if mask is None else mask[..., None].float()
            found = (found * there).sum(1) / there.sum(1).clamp(min=1)
        return found.flatten(1), answer


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer, which gives the logits."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1]
