"""The strongest scores of each row and column, exactly, in one pass over the score matrix."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np

from engine.attribution.scores.blocks import WORKING_BYTES, Workspace
from engine.attribution.scores.matrix import Scores, Tile, all_rows_if_none
from engine.attribution.scores.read_ahead import Seconds
from engine.attribution.scores.strongest import (
    Strongest,
    TopK,
    decode,
    largest,
    make_keys,
    padded,
)
from engine.attribution.scores.totals import Totals
from engine.store.errors import StoreError

_COMPILED_FROM = 2**26
"""Scores of a matrix from which compiled loops save more time than it takes to compile them."""


def top_k(
    scores: Scores,
    k: int,
    trains: range | None = None,
    memory_bytes: int = WORKING_BYTES,
    totals: Totals | None = None,
) -> tuple[TopK, TopK]:
    """Exact top-k of both signs in one pass over τ[:, trains].

    The caller may cut a long pass into several ranges of `trains`. `merge` then joins the test
    side of the results into what a single pass would have found.

    Args:
        scores: τ.
        k: How many of each sign.
        trains: The training rows to look at; None for all.
        memory_bytes: Limit for temporary arrays. Beside them, each test example needs 32·k bytes
            (`Strongest`), and the results 16·k bytes for each test example and each of `trains`.
        totals: If given, all scores are also added to these sums.

    Returns:
        (for each test example its training examples among `trains`, numbered as in the whole
        training set; for each of `trains` its test examples).

    Raises:
        StoreError: A score is not finite.
    """
    of_tests = Strongest(scores.n_test, k)
    parts = [part for _, part in rank(scores, of_tests, trains, memory_bytes, totals)]
    return of_tests.top(), stacked(parts) if parts else Strongest(0, k).top()


def rank(
    scores: Scores,
    of_tests: Strongest,
    trains: range | None = None,
    memory_bytes: int = WORKING_BYTES,
    totals: Totals | None = None,
    seconds: Seconds | None = None,
) -> Iterator[tuple[range, TopK]]:
    """The pass of `top_k`, a block of training examples at a time.

    Args:
        of_tests: Gets the scores of every test example. The blocks of all passes that it is given
            to must be in ascending order.
        seconds: If given, gets the time that the pass took.

    Yields:
        (some of `trains`, in order; for each of them its test examples).
    """
    trains, seconds = all_rows_if_none(trains, scores.n_train), seconds or Seconds()
    compiled = scores.n_test * scores.n_train >= _COMPILED_FROM
    workspace = Workspace()
    of_trains: Strongest | None = None
    for tile in scores.tiles(trains, memory_bytes, seconds):
        start = time.perf_counter()
        if of_trains is None or len(tile.trains) > len(of_trains.keys):
            of_trains = Strongest(len(tile.trains), of_tests.k)
        if tile.tests.start == 0:
            of_trains.clear()
        _offer(tile, of_tests, of_trains, compiled, workspace)
        if totals is not None:
            totals.add(tile.tests, tile.trains, tile.scores, compiled)
        if tile.tests.stop < scores.n_test:
            seconds.selecting += time.perf_counter() - start
            continue
        found = of_trains.top(range(len(tile.trains)))
        seconds.selecting += time.perf_counter() - start
        yield tile.trains, found


def _offer(
    tile: Tile, of_tests: Strongest, of_trains: Strongest, compiled: bool, workspace: Workspace
) -> None:
    """Offer a tile's scores to both sides.

    Raises:
        StoreError: A score is not finite.
    """
    tests, trains = tile.tests, tile.trains
    places = range(len(trains))
    if not compiled:
        if not np.isfinite([tile.scores.min(), tile.scores.max()]).all():
            raise _not_finite(tile)
        of_tests.offer(tests, trains.start, tile.scores, workspace)
        of_trains.offer(places, tests.start, tile.scores.T, workspace)
        return
    from engine.attribution.scores.keep_strongest import offer

    test_side = tests.start, of_tests.arrays(tests)
    train_side = trains.start, of_trains.arrays(places)
    scores, row_side, column_side = tile.scores, test_side, train_side
    if not scores.flags.c_contiguous:
        scores, row_side, column_side = scores.T, train_side, test_side
    bits = np.ascontiguousarray(scores).view(np.int32)
    place = offer(bits, row_side[0], column_side[0], of_tests.k, *row_side[1], *column_side[1])
    if place >= 0:
        raise _not_finite(tile)


def _not_finite(tile: Tile) -> StoreError:
    return StoreError(
        f"Scores of training examples {tile.trains.start} to {tile.trains.stop - 1} are not all "
        "finite: features or a checkpoint are damaged. `dataloupe doctor` names the file."
    )


def top_k_among(scores: np.ndarray, candidates: np.ndarray, k: int) -> TopK:
    """Top-k of both signs of `scores` `[n, c]` of the `candidates` `[n, c]`, given by index."""
    support, oppose = (
        padded(largest(make_keys(scores, sign, candidates, Workspace()), k), k) for sign in (1, -1)
    )
    return decode(support, oppose)


def merge(parts: Sequence[TopK]) -> TopK:
    """Join the top-k of the same examples among disjoint candidates (results of `top_k`)."""
    k = parts[0].support_index.shape[1]
    index = np.concatenate([part.support_index for part in parts], axis=1)
    score = np.concatenate([part.support_score for part in parts], axis=1)
    support = largest(make_keys(score, 1, index, Workspace()), k)
    index = np.concatenate([part.oppose_index for part in parts], axis=1)
    score = np.concatenate([part.oppose_score for part in parts], axis=1)
    oppose = largest(make_keys(score, -1, index, Workspace()), k)
    return decode(support, oppose)


def stacked(parts: Sequence[TopK]) -> TopK:
    """The top-k of consecutive examples as one."""
    return TopK(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(TopK)
        }
    )
