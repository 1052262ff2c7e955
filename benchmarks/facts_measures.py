"""How well scores find the training rows that state a fact: MRR and recall, and their intervals."""

from __future__ import annotations

import numpy as np


def reciprocal_ranks(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """1 / rank of the first true row of each query, `[n_queries]`; its mean is the MRR.

    Rows with equal scores share the mean of their ranks, so that the order of the rows, which means
    nothing, does not count.

    Args:
        scores: `[n_queries, n_rows]`, larger is better.
        true: Which rows are right for a query, `[n_queries, n_rows]`; one or more each.
    """
    _require_some(true)
    best = np.where(true, scores, -np.inf).max(axis=1, keepdims=True)
    better = (scores > best).sum(axis=1)
    equal_but_false = ((scores == best) & ~true).sum(axis=1)
    equal_and_true = ((scores == best) & true).sum(axis=1)
    # The first of t true rows among f false ones is on average at place 1 + f / (t + 1).
    ranks = 1 + better + equal_but_false / (equal_and_true + 1)
    found: np.ndarray = 1 / ranks
    return found


def recalls(scores: np.ndarray, true: np.ndarray, k: int = 10) -> np.ndarray:
    """Share of the true rows among the first k, `[n_queries]`; 1 is possible where k are enough.

    Of equal scores the share that is expected in a random order counts.
    """
    _require_some(true)
    k = min(k, scores.shape[1])
    last = np.partition(scores, -k, axis=1)[:, -k, None]  # the k-th best score
    above, equal = scores > last, scores == last
    share = (k - above.sum(axis=1)) / equal.sum(axis=1)
    hits = (above & true).sum(axis=1) + share * (equal & true).sum(axis=1)
    found: np.ndarray = hits / np.minimum(true.sum(axis=1), k)
    return found


def _require_some(true: np.ndarray) -> None:
    if not true.any(axis=1).all():
        raise ValueError(f"query {int(np.argmin(true.any(axis=1)))} has no true row")
