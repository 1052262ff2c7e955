"""Outcomes: what a prediction is and when it is right. Not every task has them.

Confusion matrices, flips, brittle predictions and accuracies need outcomes. A task without them,
such as regression, has model outputs only. Everything here is numpy: pages use it without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a task, from one array of its records.

    An answer is a number, which `Dataset.classes` names. `own` holds the right answer of each
    example.

    Attributes:
        record: Name of the array `[n, answers]` in a model's record: larger for a likelier answer.
        answers: (record `[..., n, answers]`) → the model's answers, int32 `[..., n]`.
        rivals: (record, own `[n]`) → the best wrong answers, int32 `[..., n]`.
    """

    record: str
    answers: Callable[[np.ndarray], np.ndarray]
    rivals: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _answers(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = logits.argmax(axis=-1).astype(np.int32)
    return found


def _rivals(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    right = np.arange(logits.shape[-1]) == own[:, None]
    return _answers(np.where(right, -np.inf, logits))


CLASSES = Outcomes("logits", _answers, _rivals)
"""The largest logit is the predicted class."""

OUTCOMES = {"classes": CLASSES}
"""Name in a task and in dataset.json → its outcomes."""


def outcomes_named(name: str | None) -> Outcomes | None:
    """The outcomes of that name; None for None, a task without right and wrong."""
    return None if name is None else OUTCOMES[name]
