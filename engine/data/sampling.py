"""A stratified sample of a split: what `train_limit` and `test_limit` under [data] draw."""

from __future__ import annotations

import numpy as np

from engine.store.layout import SPLITS, Split


def sample_rows(labels: np.ndarray, limit: int | None, seed: int, split: Split) -> np.ndarray:
    """Rows of a sample that has each class in proportion, in the order of the source.

    Each class has at least one row while the limit allows. A smaller limit draws fewer rows of the
    same shuffled classes, so samples of similar sizes have most rows in common.

    Args:
        labels: Class number of each row of the split.
        limit: Rows to draw; None, or at least as many as there are: all.
        seed: The study's. The same labels, limit and seed give the same rows.
        split: The splits draw independently.

    Returns:
        int64, ascending.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    generator = np.random.default_rng([seed, SPLITS.index(split)])
    shuffled = generator.permutation(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    # Among equal shares, chance decides which class gets a row more.
    order = generator.permutation(len(classes))
    classes, counts = classes[order], counts[order]
    chosen = [
        shuffled[labels[shuffled] == name][:rows]
        for name, rows in zip(classes, _shares(counts, limit), strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _shares(counts: np.ndarray, limit: int) -> np.ndarray:
    """How many of each class: the largest remainders, after one for each class if they fit."""
    shares: np.ndarray
    if limit <= len(counts):
        one_each = np.zeros(len(counts), np.int64)
        one_each[np.argsort(-counts, kind="stable")[:limit]] = 1
        return one_each
    exact = counts * limit / counts.sum()
    shares = np.maximum(np.floor(exact).astype(np.int64), 1)
    while shares.sum() > limit:  # classes of one row each took rows of the larger ones
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    missing = limit - shares.sum()
    open_ = np.where(shares < counts, exact - shares, -np.inf)
    shares[np.argsort(-open_, kind="stable")[:missing]] += 1
    return shares
