"""One prediction from several checkpoints.

The checkpoints' logits are averaged, and everything shown of a prediction follows from the average:
the predicted class, its confidence, the margin, the logit gap, and whether it flips. So they cannot
contradict each other: a margin above 0 means a probability of the true label above one half, and
then it is the predicted class. Averaging log-odds in one place and probabilities in another would
allow a wrong prediction with a positive margin.

Attributions are sums over checkpoints of derivatives of log-odds, which averages of logits suit
best. Among ways to pool opinions, this is the logarithmic one (Genest & Zidek 1986).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def combined(records: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of what the checkpoints give; of whole numbers, which name things, the vote."""
    every = list(records)
    if np.issubdtype(every[0].dtype, np.integer):
        return checkpoint_vote(every)
    return checkpoint_mean(every)


def checkpoint_vote(records: Iterable[np.ndarray]) -> np.ndarray:
    """For each example the row that most checkpoints give, the first of those: `[n, ...]`.

    Rows of −1 name nothing: they are given only if no checkpoint names something.
    """
    every = np.stack([np.asarray(each) for each in records])
    same = every[:, None] == every[None]
    agreeing = same.reshape(*same.shape[:3], -1).all(axis=-1).sum(axis=1)
    agreeing[(every == -1).reshape(*every.shape[:2], -1).all(axis=-1)] = 0
    found: np.ndarray = every[agreeing.argmax(axis=0), np.arange(every.shape[1])]
    return found


def checkpoint_mean(records: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of what the checkpoints give, such as their logits: float64 in the shape of each.

    Args:
        records: One array for each checkpoint, all of one shape; at least one.
    """
    total: np.ndarray | float = 0.0
    count = 0
    for each in records:
        total = total + np.asarray(each, np.float64)
        count += 1
    mean: np.ndarray = np.asarray(total) / count
    return mean
