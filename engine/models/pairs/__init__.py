"""Models of pairs: two towers, one for pictures and one for captions, and a temperature.

A model of pairs takes `pixel_values` [b, c, h, w], `input_ids` and `attention_mask` [b, tokens] by
these names, and returns embeddings of both, `[b, d]` each, and the factor of their similarities.
`pairs_of` reads them from whatever it returns.

`two_towers` holds the built-in architecture; `engine.models.transformers_zoo` builds CLIP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.answers import described
from engine.store.errors import SpecError

ANSWER = "answer"
"""Key of an encoding that says what models give, if they give no logits."""
PAIRS = "pairs"
"""Its value for models of pairs."""

_NAMES = {
    "pictures": ("pictures", "image_embeds", "image_features"),
    "captions": ("captions", "text_embeds", "text_features"),
    "scale": ("scale", "logit_scale"),
}
"""What libraries call the parts of an answer."""


@dataclass(frozen=True)
class Pairs:
    """What a model of pairs gives for a batch.

    Attributes:
        pictures, captions: Embeddings of length 1, `[b, d]`.
        scale: What similarities are multiplied with before the softmax, the inverse temperature: a
            single number, or `[b, 1]` where its gradient is wanted for each example.
    """

    pictures: Tensor
    captions: Tensor
    scale: Tensor


def pairs_of(answer: Any) -> Pairs:
    """The embeddings and the scale in a model's answer: a tuple of three, or parts with names.

    Raises:
        SpecError: Some part is missing, or the embeddings do not fit together.
    """
    found = [_part(answer, place, names) for place, names in enumerate(_NAMES.values())]
    if any(part is None for part in found):
        raise SpecError(
            f"the model gives {described(answer)}; a model of pairs gives embeddings of pictures "
            "and of captions, [batch, d] each, and the factor of their similarities (the inverse "
            "temperature), in this order or named pictures, captions and scale."
        )
    pictures, captions, scale = (part for part in found if part is not None)
    if pictures.ndim != 2 or pictures.shape != captions.shape:
        raise SpecError(
            f"the model gives pictures of shape {list(pictures.shape)} and captions of shape "
            f"{list(captions.shape)}; a model of pairs gives embeddings of one width, [batch, d]."
        )
    return Pairs(functional.normalize(pictures), functional.normalize(captions), _column(scale))


def _part(answer: Any, place: int, names: tuple[str, ...]) -> Tensor | None:
    if isinstance(answer, (tuple, list)) and not hasattr(answer, names[0]):
        part = answer[place] if len(answer) == len(_NAMES) else None
        return part if isinstance(part, Tensor) else None
    for name in names:
        part = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
        if isinstance(part, Tensor):
            return part
    return None


def _column(scale: Tensor) -> Tensor:
    """The scale as a single number, or as a column with a number for each example."""
    return scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, 1)


def check_pairs(architecture: str, answer: Any) -> None:
    """Raise SpecError if an architecture does not give two pairs for two examples."""
    try:
        found = pairs_of(answer)
    except SpecError as error:
        raise SpecError(f"architecture {architecture!r}: {error}") from error
    if len(found.pictures) != 2 or found.scale.numel() not in (1, 2):
        raise SpecError(
            f"architecture {architecture!r} gives {described(answer)} for two pairs; it must give "
            "an embedding of each picture and of each caption, and one scale."
        )
    if not (found.pictures.is_floating_point() and torch.is_floating_point(found.scale)):
        raise SpecError(f"architecture {architecture!r} gives embeddings that are whole numbers.")
