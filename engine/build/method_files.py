"""Scores of a method other than TRAK: shards of test rows, and what they are.

`method.json` is written last: a method that has one is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from engine import store
from engine.attribution.sparse_scores import SparseRows
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD
from engine.study.examples import shard_count
from engine.study.reader import StudyReader


def write_method(
    study: StudyReader,
    algorithm: str,
    method: str,
    rows: Callable[[slice], np.ndarray | SparseRows],
    badge: Mapping[str, Any],
    fingerprint: str,
    details: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Write what is missing of a method's scores; they are ranked by the `search` stage.

    Args:
        study: With its data built.
        algorithm: Whose predictions are attributed.
        method: Its name in the store and in links.
        rows: Gives the scores of some test examples, `[rows, n_train]`, all dense or all sparse;
            asked for in order, and only for shards that are not there yet.
        badge: What `Badge` should say: `method` (its name for people), `reason`, and what else of
            its attributes is known.
        fingerprint: Fingerprint of everything the scores depend on.
        details: Gives more to keep beside the badge, once all scores are written.

    Raises:
        StaleError: Scores made from something else lie there.
    """
    about = layout.method_file(study.root, algorithm, method)
    if about.exists():
        store.read_json(about, fingerprint)
    for shard in range(shard_count(study, "test")):
        path = layout.method_scores_file(study.root, algorithm, method, shard)
        if path.exists():
            store.read_tensors(path, fingerprint)
            continue
        first = shard * ROWS_PER_SHARD
        tests = slice(first, min(first + ROWS_PER_SHARD, study.dataset.n_test))
        scores = rows(tests)
        if isinstance(scores, SparseRows):
            store.write_tensors(path, vars(scores), fingerprint)
            continue
        wanted = (tests.stop - tests.start, study.dataset.n_train)
        if scores.shape != wanted:
            raise ValueError(f"scores are {scores.shape}, not {wanted}")
        dense = np.ascontiguousarray(scores, dtype=np.float32)
        store.write_tensors(path, {"scores": dense}, fingerprint)
    if not about.exists():
        _write_about(study, algorithm, method, badge, fingerprint, details())


def write_method_in_blocks(
    study: StudyReader,
    algorithm: str,
    method: str,
    blocks: Iterable[tuple[slice, slice, np.ndarray]],
    badge: Mapping[str, Any],
    fingerprint: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a method's scores from blocks in any order, in place of what the method had.

    No more than a block is held in memory. An error in `blocks` leaves everything as it was.

    Args:
        study, algorithm, method, badge, fingerprint: As for `write_method`.
        details: More to keep beside the badge.
        blocks: (test rows, training rows, their scores); together every score once.
    """
    n_test, n_train = study.dataset.n_test, study.dataset.n_train
    with ExitStack() as shards:
        files = []
        for shard in range(shard_count(study, "test")):
            path = layout.method_scores_file(study.root, algorithm, method, shard)
            shape = min(ROWS_PER_SHARD, n_test - shard * ROWS_PER_SHARD), n_train
            files.append(
                shards.enter_context(store.filling_matrix(path, "scores", shape, fingerprint))
            )
        for tests, trains, block in blocks:
            for shard, file in enumerate(files):
                start = shard * ROWS_PER_SHARD
                first, last = max(tests.start, start), min(tests.stop, start + file.shape[0])
                if first < last:
                    mine = block[first - tests.start : last - tests.start]
                    file.write(first - start, trains.start, mine)
        forget_method(study, algorithm, method)
    _write_about(study, algorithm, method, badge, fingerprint, details)


def forget_method(study: StudyReader, algorithm: str, method: str) -> None:
    """Take a method out of the study's lists. Its scores are left, to be replaced or removed."""
    shutil.rmtree(layout.search_folder(study.root, algorithm, method), ignore_errors=True)
    layout.method_file(study.root, algorithm, method).unlink(missing_ok=True)


def remove_method(study: StudyReader, algorithm: str, method: str) -> None:
    """Remove a method's scores and all that was made of them."""
    forget_method(study, algorithm, method)
    shutil.rmtree(layout.method_folder(study.root, algorithm, method), ignore_errors=True)


def _write_about(
    study: StudyReader,
    algorithm: str,
    method: str,
    badge: Mapping[str, Any],
    fingerprint: str,
    details: Mapping[str, Any] | None,
) -> None:
    about = layout.method_file(study.root, algorithm, method)
    store.write_json(about, {"badge": dict(badge), **(details or {})}, fingerprint)
