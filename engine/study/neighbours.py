"""The training examples that are most similar to an example in the model's embedding."""

from __future__ import annotations

import numpy as np

from engine import store
from engine.attribution.search.similarity import Embeddings
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.layout import ROWS_PER_SHARD, Split
from engine.store.records import Similarity
from engine.study.examples import by_shard
from engine.study.names import resolve_algorithm
from engine.study.rankings import read_faiss_index
from engine.study.reader import StudyReader


def has_neighbours(study: StudyReader, algorithm: str) -> bool:
    """Whether the neighbours stage is built, even if the model has no embeddings."""
    return layout.similarity_file(study.root, algorithm).exists()


def has_similar(study: StudyReader, algorithm: str) -> bool:
    """Whether nearest training examples are stored: the stage is built, and models have
    embeddings."""
    return has_neighbours(study, algorithm) and bool(read_similarity(study, algorithm).checkpoints)


def read_similarity(study: StudyReader, algorithm: str | None = None) -> Similarity:
    """Read how similarity is measured. Raises StoreError before it is built."""
    found = store.read_json(layout.similarity_file(study.root, resolve_algorithm(study, algorithm)))
    if not found["checkpoints"]:
        return Similarity(0, found["reason"])
    return Similarity(
        checkpoints=found["checkpoints"],
        reason=found["reason"],
        stored=found["recall_at"],
        index=found["kind"],
        recall=found["recall"],
    )


def read_embeddings(
    study: StudyReader, split: Split, checkpoints: int, algorithm: str | None = None
) -> Embeddings:
    """The embeddings of a split from the first `checkpoints` models, memory-mapped."""
    from engine.attribution.search.similarity import Embeddings

    algorithm = resolve_algorithm(study, algorithm)
    files = [layout.outputs_file(study.root, algorithm, m, split) for m in range(checkpoints)]
    return Embeddings([store.read_tensors(file)["embeddings"] for file in files])


def find_neighbours(
    study: StudyReader, split: Split, row: int, k: int, algorithm: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k training rows most similar to one example, without the example itself.

    Returns (rows, similarities), most similar first: mean cosines of the embeddings. Up to
    the stored k they are read; beyond it they come from the FAISS index, re-ranked exactly.

    Raises:
        DataloupeError: The model has no embeddings. StoreError: They are not built yet.
    """
    algorithm = resolve_algorithm(study, algorithm)
    similarity = read_similarity(study, algorithm)
    if not similarity.checkpoints:
        raise DataloupeError(f"{algorithm} has no similar examples: {similarity.reason}.")
    k = min(k, study.dataset.n_train - (split == "train"))
    path = layout.neighbours_file(study.root, algorithm, split, row // ROWS_PER_SHARD)
    found = {name: part[row % ROWS_PER_SHARD] for name, part in store.read_tensors(path).items()}
    if k > len(found["index"]):
        found = _nearest(study, split, row, k, algorithm)
    rows, similarities = found["index"][:k], found["similarity"][:k]
    return rows[rows >= 0], similarities[rows >= 0]


def read_neighbours(
    study: StudyReader, split: Split, rows: np.ndarray, algorithm: str
) -> np.ndarray:
    """The stored nearest training rows of some examples: int32 `[len(rows), k]`, most similar
    first; −1 where there are fewer. Raises StoreError before they are built."""
    parts = []
    for shard, places, within in by_shard(rows):
        path = layout.neighbours_file(study.root, algorithm, split, shard)
        parts.append((places, store.read_tensors(path)["index"][within]))
    width = parts[0][1].shape[1] if parts else 0
    found = np.empty((len(rows), width), np.int32)
    for places, near in parts:
        found[places] = near
    return found


def _nearest(
    study: StudyReader, split: Split, row: int, k: int, algorithm: str
) -> dict[str, np.ndarray]:
    from engine.attribution.search.similarity import nearest
    from engine.attribution.search.vector_index import candidates_for

    measured = store.read_json(layout.similarity_file(study.root, algorithm))
    used, at = measured["checkpoints"], np.array([row])
    queries = read_embeddings(study, split, used, algorithm).rows(at)
    candidates = candidates_for(k, measured)
    index = read_faiss_index(layout.neighbours_index_file(study.root, algorithm))
    itself = at if split == "train" else None
    training = read_embeddings(study, "train", used, algorithm)
    found = nearest(index, training, queries, k, candidates, itself)
    return {name: part[0] for name, part in vars(found).items()}
