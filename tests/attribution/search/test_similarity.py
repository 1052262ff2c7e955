"""Nearest neighbors by embeddings, against float64 cosines of all pairs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from engine import DataloupeError, StaleError, StoreError, Study, store
from engine.attribution.search.similarity import (
    Embeddings,
    checkpoints_to_use,
    choose_kind,
    measure_recall,
    nearest,
    nearest_of_all,
)
from engine.attribution.search.vector_index import build_index
from engine.store import layout
from engine.study.neighbours import read_similarity


def mean_cosines(queries: list[np.ndarray], examples: list[np.ndarray]) -> np.ndarray:
    """The definition, in float64 and without laying anything side by side."""
    parts = []
    for a, b in zip(queries, examples, strict=True):
        lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        products = a.astype(np.float64) @ b.T.astype(np.float64)
        parts.append(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))
    return np.mean(parts, axis=0)


def embeddings_of(n: int, seed: int, widths: tuple[int, ...] = (6, 9)) -> list[np.ndarray]:
    """Clustered, all positive, of very different lengths: as behind a ReLU."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).random((8, sum(widths)))
    whole = np.abs(centres[rng.integers(8, size=n)] + 0.2 * rng.standard_normal((n, sum(widths))))
    whole *= np.geomspace(0.01, 100, n)[rng.permutation(n), None]
    return np.split(whole.astype(np.float32), np.cumsum(widths)[:-1], axis=1)


def test_the_inner_product_is_the_mean_cosine() -> None:
    examples, queries = embeddings_of(300, 1), embeddings_of(20, 2)
    examples[0][7] = 0
    found = Embeddings(queries).rows(range(20)) @ Embeddings(examples).rows(range(300)).T
    np.testing.assert_allclose(found, mean_cosines(queries, examples), atol=1e-6)
    some = np.array([7, 7, 299, 0])
    np.testing.assert_array_equal(
        Embeddings(examples).rows(some), Embeddings(examples).rows(range(300))[some]
    )


@pytest.mark.parametrize("kind", ["flat", "ivf", "sq"])
def test_the_nearest_are_found_in_order(kind) -> None:
    examples, queries = embeddings_of(700, 1), embeddings_of(300, 2)
    embeddings, vectors = Embeddings(examples), Embeddings(queries).rows(range(300))
    truth = mean_cosines(queries, examples)
    index = build_index(embeddings, kind, seed=0)
    recall = measure_recall(index, embeddings, vectors[:50], k=10)
    found = nearest(index, embeddings, vectors, 10, recall.candidates)
    assert recall.recall >= 0.99
    order = np.argsort(-truth, axis=1)[:, :10]
    assert (order[:, :, None] == found.index[:, None, :]).any(2).mean() > 0.98
    wanted = np.take_along_axis(truth, found.index.astype(int), axis=1)
    np.testing.assert_allclose(found.similarity, wanted, atol=1e-6)
    assert (np.diff(found.similarity, axis=1) <= 0).all()


def test_an_example_is_not_its_own_neighbor_and_ties_keep_the_order_of_the_data() -> None:
    examples = embeddings_of(40, 3)
    for part in examples:
        part[[5, 9, 30]] = part[5]  # duplicates
    embeddings = Embeddings(examples)
    index = build_index(embeddings, "flat", seed=0)
    rows = np.arange(40)
    found = nearest(index, embeddings, embeddings.rows(rows), 39, 39, exclude=rows)
    assert all(sorted([row, *mine]) == list(range(40)) for row, mine in enumerate(found.index))
    assert found.index[5, :2].tolist() == [9, 30]
    assert found.index[30, :2].tolist() == [5, 9]
    np.testing.assert_allclose(found.similarity[[5, 9, 30], :2], 1, atol=1e-6)


def test_missing_neighbors_are_minus_one() -> None:
    embeddings = Embeddings(embeddings_of(4, 3))
    index = build_index(embeddings, "flat", seed=0)
    found = nearest(index, embeddings, embeddings.rows(range(4)), 6, 6, exclude=np.arange(4))
    assert (found.index[:, 3:] == -1).all()
    assert (found.similarity[:, 3:] == 0).all()


def test_exact_search_in_blocks_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.attribution.search.similarity._ROWS", 64)
    examples, queries = embeddings_of(300, 1), embeddings_of(20, 2)
    found = nearest_of_all(Embeddings(examples), Embeddings(queries).rows(range(20)), 12)
    truth = mean_cosines(queries, examples)
    np.testing.assert_array_equal(found.index, np.argsort(-truth, axis=1)[:, :12])


def test_as_many_checkpoints_as_fit() -> None:
    assert checkpoints_to_use(64, 10, 5_000) == 10
    assert checkpoints_to_use(512, 10, 5_000) == 4
    assert checkpoints_to_use(4096, 10, 5_000) == 1
    assert checkpoints_to_use(512, 5, 1_280_000) == 1
    assert choose_kind(5_000)[0] == "flat"
    assert choose_kind(1_280_000)[0] == "ivf"


# --- in a study --------------------------------------------------------------------------------


def stored_embeddings(study: Study, split: str) -> list[np.ndarray]:
    assert split in ("train", "test")
    files = [layout.outputs_file(study.root, "mlp", m, split) for m in range(2)]
    return [np.array(store.read_tensors(file)["embeddings"]) for file in files]


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_study_stores_the_nearest_of_every_example(small_study: Study, split: str) -> None:
    assert split in ("train", "test")
    truth = mean_cosines(
        stored_embeddings(small_study, split), stored_embeddings(small_study, "train")
    )
    if split == "train":
        np.fill_diagonal(truth, -2)
    assert read_similarity(small_study).checkpoints == 2
    assert read_similarity(small_study).stored == 100
    for row in (0, 17, 59):
        for k in (7, 160):  # read, and searched for
            rows, alike = small_study.neighbours(split, row, k)
            assert len(rows) == k
            np.testing.assert_allclose(alike, truth[row][rows], atol=1e-6)
            np.testing.assert_allclose(alike, np.sort(truth[row])[::-1][:k], atol=1e-6)


def test_all_training_examples_can_be_requested(small_study: Study) -> None:
    rows, _ = small_study.neighbours("train", 17, 10_000)
    assert sorted([17, *rows]) == list(range(300))


def test_neighbors_of_other_checkpoints_are_refused(study_folder: Path, small_study: Study) -> None:
    shutil.copytree(small_study.root, study_folder, dirs_exist_ok=True)
    study = Study.open(study_folder)
    shard = layout.neighbours_file(study.root, "mlp", "test", 0)
    layout.similarity_file(study.root, "mlp").unlink()
    layout.neighbours_index_file(study.root, "mlp").unlink()
    store.write_tensors(shard, dict(store.read_tensors(shard)), "another spec")
    with pytest.raises(StaleError, match=r"test-00000.*--rebuild neighbours`"):
        study.build(workers=0)
    assert not layout.neighbours_index_file(study.root, "mlp").exists()


ARCHITECTURE = """
from torch import nn


def plain(encoding, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, n_classes))
"""


def test_a_model_without_embed_says_so(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_architecture.py").write_text(ARCHITECTURE)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = study_folder / "study.toml"
    text = spec.read_text().replace("train_limit = 300", "train_limit = 60")
    text = text.replace('"mlp"\n', '"python:own_architecture:plain"\n')
    spec.write_text(text.replace("architecture_options = { widths = [32] }\n", ""))
    study = Study.open(study_folder, trust=True)
    with pytest.raises(StoreError, match="is missing"):
        study.neighbours("test", 0, 5)
    study.build(workers=0)
    sys.modules.pop("own_architecture")
    assert read_similarity(study).checkpoints == 0
    with pytest.raises(DataloupeError, match="has no method `embed`"):
        study.neighbours("test", 0, 5)
    assert all(step.complete for step in study.progress())
