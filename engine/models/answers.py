"""Read the logits from whatever a model returns: a tensor, an object, a mapping or a tuple."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.store.errors import SpecError

_NAMES = ("logits", "out", "output", "outputs", "prediction", "predictions", "scores")
"""Names that libraries give to a model's logits, the most explicit first."""


def logits_of(answer: Any) -> Tensor:
    """The logits in a model's answer, in float32.

    A tensor is taken as it is; of an object or a mapping, the part named `logits` (or one of
    `_NAMES`), or the only tensor of a mapping; of a tuple or list, the first element.

    Raises:
        SpecError: The logits cannot be told from the rest.
    """
    found = _find(answer)
    if found is None:
        raise SpecError(
            f"the model returns {described(answer)}, in which the logits are not named; return "
            "the logits alone, in an object with .logits, or first in a tuple."
        )
    return found.float() if found.is_floating_point() and found.dtype != torch.float32 else found


def _find(answer: Any) -> Tensor | None:
    if isinstance(answer, Tensor):
        return answer
    for name in _NAMES:
        part = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
        if isinstance(part, Tensor):
            return part
    if isinstance(answer, Mapping):
        tensors = [part for part in answer.values() if isinstance(part, Tensor)]
        return tensors[0] if len(tensors) == 1 else None
    if isinstance(answer, (tuple, list)) and answer:
        return _find(answer[0])
    return None


def described(answer: Any) -> str:
    """A model's answer in a few words: its types and shapes."""
    if isinstance(answer, Tensor):
        return f"shape {list(answer.shape)}" if answer.ndim else "a single number"
    if isinstance(answer, Mapping):
        parts = [f"{name!r}: {described(part)}" for name, part in answer.items()]
        return f"a mapping of {', '.join(parts) or 'nothing'}"
    if isinstance(answer, (tuple, list)):
        parts = [described(part) for part in answer]
        return f"a {type(answer).__name__} of {', '.join(parts) or 'nothing'}"
    return "None" if answer is None else f"a value of type {type(answer).__name__}"
