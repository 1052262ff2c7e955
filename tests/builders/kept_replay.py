"""Exact scores written into a study as if its models had been replayed."""

from __future__ import annotations

import numpy as np

from engine import Study, store
from engine.build.replaying import Query, replay_file, replay_fingerprint, write_scores
from engine.store import layout


def keep_replay(study: Study, test: int, scores: np.ndarray) -> None:
    """Keep scores `[models, n_train]` of a test example for the study's first algorithm."""
    algorithm = next(iter(study.algorithms))
    fingerprint = replay_fingerprint(study, algorithm)
    query = Query((test,), (1.0,))
    for seed, one in enumerate(scores):
        path = replay_file(study.root, algorithm, fingerprint, seed, query)
        write_scores(path, query, one, 1.0, fingerprint, {})


def keep_smoothness(study: Study, value: float) -> None:
    """Keep a measured smoothness of the study's first algorithm."""
    algorithm = next(iter(study.algorithms))
    fingerprint = replay_fingerprint(study, algorithm)
    path = layout.replay_file(study.root, algorithm, fingerprint, "smoothness")
    measured = {"smoothness": np.array([value], np.float32)}
    store.write_tensors(path, measured, fingerprint, {"levers": ["larger batches (`batch_size`)"]})
