"""Scores of a method other than TRAK: shards of test rows, and what they are.

`method.json` is written last: a method that has one is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine import store
from engine.study import ROWS_PER_SHARD, Study


def write_method(
    study: Study,
    algorithm: str,
    method: str,
    rows: Callable[[slice], np.ndarray],
    badge: Mapping[str, Any],
    made_from: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write what is missing of a method's scores; they are ranked by the `search` stage.

    Args:
        study: With its data built.
        algorithm: Whose predictions are attributed.
        method: Its name in the store and in links.
        rows: Gives the scores of some test examples, `[rows, n_train]`; asked for in order, and
            only for shards that are not there yet.
        badge: What `Badge` should say: `method` (its name for people), `reason`, and what else of
            its attributes is known.
        made_from: Fingerprint of everything the scores depend on.
        details: More to keep beside the badge.

    Raises:
        StaleError: Scores made from something else lie there.
    """
    about = study.method_file(algorithm, method)
    if about.exists():
        store.read_json(about, made_from)
    for shard in range(study.shards("test")):
        path = study.method_scores_file(algorithm, method, shard)
        if path.exists():
            store.read_tensors(path, made_from)
            continue
        first = shard * ROWS_PER_SHARD
        tests = slice(first, min(first + ROWS_PER_SHARD, study.dataset.n_test))
        scores = np.ascontiguousarray(rows(tests), dtype=np.float32)
        wanted = (tests.stop - tests.start, study.dataset.n_train)
        if scores.shape != wanted:
            raise ValueError(f"scores are {scores.shape}, not {wanted}")
        store.write_tensors(path, {"scores": scores}, made_from)
    if not about.exists():
        store.write_json(about, {"badge": dict(badge), **(details or {})}, made_from)
