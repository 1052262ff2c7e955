"""How far the logit of the right class leads the largest other. It is 0 where the predicted class
changes."""

from __future__ import annotations

import numpy as np


def best_wrong_classes(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The class with the largest logit `[..., n, classes]` but the right one `[n]`: int32."""
    right = np.arange(logits.shape[-1]) == own[:, None]
    found: np.ndarray = np.where(right, -np.inf, logits).argmax(axis=-1).astype(np.int32)
    return found


def gaps_to(logits: np.ndarray, own: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Logit `[n, classes]` of the right class `[n]` minus that of a wrong one `[n]`: float64."""
    rows = np.arange(len(own))
    right, other = (logits[rows, one].astype(np.float64) for one in (own, wrong))
    gaps: np.ndarray = right - other
    return gaps
