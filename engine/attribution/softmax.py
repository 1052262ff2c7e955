"""Probabilities and margins from logits, without torch."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, float64 in the shape of `logits`."""
    logits = logits.astype(np.float64)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = exponents / exponents.sum(axis=-1, keepdims=True)
    return probabilities


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logit of each label minus the logsumexp of the others, as in `engine.tasks.margin`.

    Args:
        logits: `[..., n, classes]`.
        labels: Class numbers `[n]`.

    Returns:
        float64 `[..., n]`.
    """
    own = np.zeros(logits.shape[-2:], dtype=bool)
    own[np.arange(len(labels)), labels] = True
    others = np.where(own, -np.inf, logits.astype(np.float64))
    most = others.max(axis=-1)
    rest = most + np.log(np.exp(others - most[..., None]).sum(axis=-1))
    found: np.ndarray = np.where(own, logits, 0).sum(axis=-1, dtype=np.float64) - rest
    return found
