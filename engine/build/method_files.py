"""Write, replace and remove the stored scores of attribution methods other than TRAK.

Scores are stored in shards of test rows. `method.json` is written last, so a method that has one is
complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD
from engine.study.examples import shard_count
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def write_method(
    study: StudyReader,
    algorithm: str,
    method: str,
    rows: Callable[[slice], np.ndarray | csr_array],
    badge: Mapping[str, Any],
    fingerprint: str,
    details: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Write the missing shards of a method's scores. The `search` stage then ranks them.

    Args:
        study: A study with its data built.
        algorithm: The algorithm whose predictions are attributed.
        method: The method's name in the store and in links.
        rows: Returns the scores of a slice of test examples, `[rows, n_train]`, either always dense
            or always sparse. It is called in order, and only for missing shards.
        badge: Values for `Badge`: `method` (display name), `reason`, and any other known
            attributes.
        fingerprint: Fingerprint of everything the scores depend on.
        details: Returns more values to store next to the badge. Called after all scores are
            written.

    Raises:
        StaleError: The existing scores have a different fingerprint.
        ValueError: `rows` returned an array of the wrong shape.
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
        wanted = (tests.stop - tests.start, study.dataset.n_train)
        if scores.shape != wanted:
            raise ValueError(f"scores have shape {scores.shape}, expected {wanted}")
        if not isinstance(scores, np.ndarray):
            from engine.attribution.scores.sparse import to_stored

            store.write_tensors(path, to_stored(scores), fingerprint)
            continue
        dense = np.ascontiguousarray(scores, dtype=np.float32)
        store.write_tensors(path, {"scores": dense}, fingerprint)
    if not about.exists():
        _write_method_file(study, algorithm, method, badge, fingerprint, details())


def write_method_in_blocks(
    study: StudyReader,
    algorithm: str,
    method: str,
    blocks: Iterable[tuple[slice, slice, np.ndarray]],
    badge: Mapping[str, Any],
    fingerprint: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a method's scores from blocks in any order, replacing its previous scores.

    At most one block is held in memory. If `blocks` raises, the previous scores remain.

    Args:
        study, algorithm, method, badge, fingerprint: As for `write_method`.
        blocks: (test rows, training rows, scores `[test rows, training rows]`). Together they must
            hold every score exactly once.
        details: More values to store next to the badge.
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
        unlist_method(study, algorithm, method)
    _write_method_file(study, algorithm, method, badge, fingerprint, details)


def unlist_method(study: StudyReader, algorithm: str, method: str) -> None:
    """Remove a method's entry and ranking, but keep its scores on disk."""
    shutil.rmtree(layout.search_folder(study.root, algorithm, method), ignore_errors=True)
    layout.method_file(study.root, algorithm, method).unlink(missing_ok=True)


def remove_method(study: StudyReader, algorithm: str, method: str) -> None:
    """Remove a method's scores and everything computed from them."""
    unlist_method(study, algorithm, method)
    shutil.rmtree(layout.method_folder(study.root, algorithm, method), ignore_errors=True)


def _write_method_file(
    study: StudyReader,
    algorithm: str,
    method: str,
    badge: Mapping[str, Any],
    fingerprint: str,
    details: Mapping[str, Any] | None,
) -> None:
    path = layout.method_file(study.root, algorithm, method)
    store.write_json(path, {"badge": dict(badge), **(details or {})}, fingerprint)
