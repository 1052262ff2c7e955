"""The training examples with the strongest scores for a prediction, and the reverse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine import store
from engine.attribution.evaluation.effects import Units
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.layout import ROWS_PER_SHARD
from engine.store.records import Influence
from engine.study.examples import FILE, TEXT, read_texts_of, shard_count
from engine.study.names import read_names_of, resolve_algorithm, resolve_method
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

_INDEXES: FileCache[Any] = FileCache(most=8)


def read_top(
    study: StudyReader, algorithm: str | None = None, method: str | None = None
) -> dict[str, np.ndarray]:
    """Stored top-k of both signs for every test example, memory-mapped.

    `support_index`, `oppose_index` int32 `[n_test, k]` (training rows, strongest first; −1 after
    the last example of that sign); `support_score`, `oppose_score` float32.
    """
    algorithm = resolve_algorithm(study, algorithm)
    return store.read_tensors(
        layout.top_test_file(study.root, algorithm, resolve_method(study, algorithm, method))
    )


def read_top_of_training(
    study: StudyReader, row: int, algorithm: str | None = None, method: str | None = None
) -> dict[str, np.ndarray]:
    """The reverse for one training row: the test rows it supports and opposes most, `[k]`."""
    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    shard = store.read_tensors(
        layout.top_train_file(study.root, algorithm, method, row // ROWS_PER_SHARD)
    )
    return {name: array[row % ROWS_PER_SHARD] for name, array in shard.items()}


def read_principal_directions(
    study: StudyReader, most: int, algorithm: str | None = None, method: str | None = None
) -> np.ndarray | None:
    """Coordinates of training examples along the attributions' first principal directions.

    The rows of the attributions are normalized first.

    Returns:
        float32 `[n_train, d]`, d ≤ `most`, strongest direction first, with signs such that the
        entries of each sum to a positive number; None if the attribution space is not stored.
    """
    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    files = [
        layout.train_vectors_file(study.root, algorithm, method, n)
        for n in range(shard_count(study, "train"))
    ]
    if not all(file.exists() for file in files):
        return None
    shards = [store.read_tensors(file)["vectors"][:, :most] for file in files]
    found: np.ndarray = np.concatenate(shards)
    return found * np.where(found.sum(axis=0) < 0, np.float32(-1), np.float32(1))


def read_totals(
    study: StudyReader, algorithm: str | None = None, method: str | None = None
) -> dict[str, np.ndarray]:
    """Separate sums of positive and negative scores, float32, memory-mapped.

    `train_support`, `train_oppose` `[n_train]`: sums over all test predictions;
    `test_support`, `test_oppose` `[n_test]`: sums over all training examples.
    """
    algorithm = resolve_algorithm(study, algorithm)
    return store.read_tensors(
        layout.totals_file(study.root, algorithm, resolve_method(study, algorithm, method))
    )


def find_influences(
    study: StudyReader, test: int, k: int, algorithm: str | None = None, method: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The k strongest training rows of both signs for one test row.

    Returns (support rows, support scores, oppose rows, oppose scores), strongest first. Up to
    the stored k they are exact; beyond it they come from the FAISS index, re-ranked exactly.
    """
    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    top = read_top(study, algorithm, method)
    k = min(k, study.dataset.n_train)
    if k > top["support_index"].shape[1]:
        top = _search(study, test, k, algorithm, method)
        test = 0
    parts = []
    for sign in ("support", "oppose"):
        rows, scores = top[f"{sign}_index"][test, :k], top[f"{sign}_score"][test, :k]
        parts += [rows[rows >= 0], scores[rows >= 0]]
    return parts[0], parts[1], parts[2], parts[3]


def read_index(study: StudyReader, algorithm: str, method: str) -> Any:
    """The FAISS index over the training examples' vectors, kept in memory."""
    return read_faiss_index(layout.index_file(study.root, algorithm, method))


def read_faiss_index(path: Path) -> Any:
    """A FAISS index, kept in memory until its file changes."""
    from engine.attribution.search.vector_index import index_from_array

    return _INDEXES.get(path, lambda: index_from_array(store.read_tensors(path)["index"]))


def _search(
    study: StudyReader, test: int, k: int, algorithm: str, method: str
) -> dict[str, np.ndarray]:
    from engine.attribution.search.vector_index import candidates_for, search

    scores = read_score_matrix(study, algorithm, method)
    tests = np.array([test])
    vectors = store.read_tensors(layout.test_vectors_file(study.root, algorithm, method))["vectors"]
    measured = store.read_json(layout.search_file(study.root, algorithm, method))
    candidates = candidates_for(k, measured)
    index = read_index(study, algorithm, method)
    return vars(search(index, vectors[tests], partial(scores.pairs, tests), k, candidates))


def influences(units: Units, scores: np.ndarray, test: int | np.ndarray) -> np.ndarray:
    """What training examples add to the output of a test example, in its unit: the reverse of what
    their removal is predicted to do. In the shape of `scores`; `test` is the row of each."""
    found: np.ndarray = -units.of_one(scores, test)
    return found


def name_influences(
    study: StudyReader,
    *sides: tuple[np.ndarray, np.ndarray],
    units: Units | None = None,
    test: int = 0,
) -> list[list[Influence]]:
    """Training rows and their scores, with ids, labels, files and texts: one list per side.

    Args:
        units: Of the scores; None if they are not calibrated.
        test: Test row that the scores are about.
    """
    found = []
    for rows, scores in sides:
        amounts = [None] * len(rows) if units is None else influences(units, scores, test).tolist()
        named = read_names_of(study, "train", rows)
        files, texts = (read_texts_of(study, "train", name, rows) for name in (FILE, TEXT))
        found.append(
            [
                Influence(
                    int(row), str(one["id"]), str(one["label"]), float(score), file, text, amount
                )
                for row, one, score, file, text, amount in zip(
                    rows, named, scores, files, texts, amounts, strict=True
                )
            ]
        )
    return found
