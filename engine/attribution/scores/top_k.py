"""The strongest scores of each row and column, exactly, in one pass over the score matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.attribution.scores.blocks import WORKING_BYTES, Workspace
from engine.attribution.scores.matrix import Scores, all_rows_if_none
from engine.attribution.scores.totals import Totals
from engine.store.errors import StoreError

_LOW_BITS = np.int64(2**32 - 1)


@dataclass(frozen=True)
class TopK:
    """The k strongest scores of both signs for each of n examples, and whose they are.

    `support_*` are the largest positive scores, largest first; `oppose_*` the most negative ones,
    most negative first. Ties are ordered by index. Where fewer than k scores have the sign, the
    remaining places have index −1 and score 0.

    Attributes:
        support_index, oppose_index: `[n, k]` int32.
        support_score, oppose_score: `[n, k]` float32.
    """

    support_index: np.ndarray
    support_score: np.ndarray
    oppose_index: np.ndarray
    oppose_score: np.ndarray


def top_k(
    scores: Scores,
    k: int,
    trains: range | None = None,
    memory_bytes: int = WORKING_BYTES,
    totals: Totals | None = None,
) -> tuple[TopK, TopK]:
    """Exact top-k of both signs in one pass over τ[:, trains], a block of training rows at a time.

    The caller may cut a long pass into several ranges of `trains`. `merge` then joins the test
    side of the results into what a single pass would have found.

    Args:
        scores: τ.
        k: How many of each sign.
        trains: The training rows to look at; None for all.
        memory_bytes: Limit for temporary arrays. The results need 16·k bytes more for each test
            example and each row of `trains`.
        totals: If given, all scores are also added to these sums.

    Returns:
        (for each test example its training examples among `trains`, numbered as in the whole
        training set; for each of `trains` its test examples).

    Raises:
        StoreError: A score is not finite.
    """
    trains = all_rows_if_none(trains, scores.n_train)
    workspace = Workspace()
    tests_best = {sign: np.zeros((scores.n_test, k), np.int64) for sign in (1, -1)}
    by_train = _no_examples(len(trains), k)
    # `blocks` reserves at least 8 bytes per score; the steps below need 16 more.
    for first, block in scores.blocks(trains, memory_bytes // 3):
        if not np.isfinite([block.min(), block.max()]).all():
            raise StoreError(
                f"Scores of training examples {first} to {first + block.shape[1] - 1} are not all "
                "finite: features or a checkpoint are damaged. `dataloupe doctor` names the file."
            )
        if totals is not None:
            totals.add(first, block)
        turned, index = _rows_first(block, workspace), np.arange(first, first + block.shape[1])
        for sign, best in tests_best.items():
            keys = _largest(_keys(turned, sign, index, workspace), k)
            tests_best[sign] = _largest(np.concatenate([best, keys], axis=1), k)
        turned, index = _rows_first(block.T, workspace), np.arange(scores.n_test)
        found = _decode(*(_largest(_keys(turned, s, index, workspace), k) for s in (1, -1)))
        start = first - trains.start
        for name, array in vars(found).items():
            vars(by_train)[name][start : start + len(array), : array.shape[1]] = array
    return _decode(tests_best[1], tests_best[-1]), by_train


def top_k_among(scores: np.ndarray, candidates: np.ndarray, k: int) -> TopK:
    """Top-k of both signs of `scores` `[n, c]` of the `candidates` `[n, c]`, given by index."""
    support, oppose = (
        _padded(_largest(_keys(scores, sign, candidates, Workspace()), k), k) for sign in (1, -1)
    )
    return _decode(support, oppose)


def merge(parts: Sequence[TopK]) -> TopK:
    """Join the top-k of the same examples among disjoint candidates (results of `top_k`)."""
    k = parts[0].support_index.shape[1]
    index = np.concatenate([part.support_index for part in parts], axis=1)
    score = np.concatenate([part.support_score for part in parts], axis=1)
    support = _largest(_keys(score, 1, index, Workspace()), k)
    index = np.concatenate([part.oppose_index for part in parts], axis=1)
    score = np.concatenate([part.oppose_score for part in parts], axis=1)
    oppose = _largest(_keys(score, -1, index, Workspace()), k)
    return _decode(support, oppose)


def _rows_first(block: np.ndarray, workspace: Workspace) -> np.ndarray:
    """The block in C order, copied if it is not."""
    if block.flags.c_contiguous:
        return block
    out = workspace("rows_first", block.shape)
    np.copyto(out, block)
    return out


def _keys(block: np.ndarray, sign: int, index: np.ndarray, workspace: Workspace) -> np.ndarray:
    """One int64 for each score: the larger score · `sign`, the larger the key. Of equal scores the
    one with the smaller `index` has the larger key. Scores of the other sign count as 0.

    The bits of non-negative float32 numbers have the same order as the numbers, so they form the
    upper half of the key.
    """
    positive = np.multiply(block, np.float32(sign), out=workspace("positive", block.shape))
    np.maximum(positive, 0, out=positive)
    keys = workspace("keys", block.shape, np.int64)
    np.copyto(keys, positive.view(np.int32))
    np.left_shift(keys, 32, out=keys)
    # Index −1 means no example: its score is 0, and any index with score 0 is decoded as −1.
    np.bitwise_or(keys, _LOW_BITS - np.maximum(index, 0), out=keys)
    return keys


def _largest(keys: np.ndarray, k: int) -> np.ndarray:
    """The k largest keys of each row, or all if fewer, largest first. Reorders `keys`."""
    if k < keys.shape[1]:
        keys.partition(keys.shape[1] - k, axis=1)
        keys = keys[:, -k:]
    return np.sort(keys, axis=1)[:, ::-1]


def _no_examples(n: int, k: int) -> TopK:
    return TopK(
        np.full((n, k), -1, np.int32),
        np.zeros((n, k), np.float32),
        np.full((n, k), -1, np.int32),
        np.zeros((n, k), np.float32),
    )


def _padded(keys: np.ndarray, k: int) -> np.ndarray:
    return np.pad(keys, ((0, 0), (0, k - keys.shape[1])))


def _decode(support: np.ndarray, oppose: np.ndarray) -> TopK:
    support_score, oppose_score = (
        (keys >> 32).astype(np.int32).view(np.float32) for keys in (support, oppose)
    )
    support_index, oppose_index = (
        np.where(score > 0, _LOW_BITS - (keys & _LOW_BITS), -1).astype(np.int32)
        for keys, score in ((support, support_score), (oppose, oppose_score))
    )
    return TopK(support_index, support_score, oppose_index, 0 - oppose_score)
