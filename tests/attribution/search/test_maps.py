"""Maps of the attribution space: their shape, their bytes, and their stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from engine import Study, store
from engine.attribution.search.maps import comparable_rows, pca, umap
from engine.store import layout
from engine.store.layout import MAP_KINDS, SPLITS
from engine.study.live_and_maps import read_map
from engine.study.methods import ranked_methods
from engine.study.names import resolve_algorithm


def clusters(n: int, seed: int = 0, spread: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(5, 12))
    member = rng.integers(5, size=n)
    return comparable_rows(middles[member] + spread * rng.normal(size=(n, 12))), member


def test_neighbours_stay_neighbours() -> None:
    rows, member = clusters(400)
    place = umap(rows, seed=0)
    assert trustworthiness(rows, place, n_neighbors=15, metric="cosine") > 0.9
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (member[distance.argmin(axis=1)] == member).mean() > 0.99


def test_points_beyond_the_most_stand_amid_their_own() -> None:
    rows, member = clusters(400)
    place = umap(rows, seed=0, most=100)
    assert np.isfinite(place).all()
    laid_out = np.unique(np.linspace(0, 399, 100).astype(int))
    others = np.setdiff1d(np.arange(400), laid_out)
    nearest = np.linalg.norm(place[others][:, None] - place[laid_out][None], axis=2).argmin(axis=1)
    assert (member[laid_out][nearest] == member[others]).mean() > 0.95


def test_same_seed_same_bytes() -> None:
    rows, _ = clusters(200)
    assert umap(rows, 1).tobytes() == umap(rows, 1).tobytes() != umap(rows, 2).tobytes()


@pytest.mark.parametrize("n", [1, 2, 10, 16, 17, 40])
def test_few_points(n: int) -> None:
    rows, _ = clusters(n)
    assert umap(rows, 0).shape == (n, 2)
    assert np.isfinite(umap(rows, 0)).all()


def test_equal_and_empty_rows() -> None:
    rows = np.zeros((60, 4), np.float32)
    rows[20:40, 1] = 1
    assert np.isfinite(umap(rows, 0)).all()
    assert np.isfinite(pca(rows)).all()
    assert pca(np.ones((5, 1), np.float32)).shape == (5, 2)


def test_principal_components_are_those_of_scikit_learn() -> None:
    rows, _ = clusters(80)
    theirs = PCA(2, svd_solver="full").fit_transform(rows)
    np.testing.assert_allclose(np.abs(pca(rows)), np.abs(theirs), atol=1e-5)


def test_every_method_has_its_maps(small_study: Study) -> None:
    for method in ranked_methods(small_study, resolve_algorithm(small_study)):
        for kind in MAP_KINDS:
            found = read_map(small_study, kind, method=method)
            for split in SPLITS:
                assert found[split].shape == (small_study.dataset.rows(split), 2)
                assert np.isfinite(found[split]).all()
    steps = {step.stage: step for step in small_study.progress()}
    assert steps["map"].complete
    assert steps["map"].total == 2 * len(
        ranked_methods(small_study, resolve_algorithm(small_study))
    )


def test_a_missing_map_is_drawn_again_and_a_stale_one_replaced(study_folder: Path) -> None:
    spec = (study_folder / "study.toml").read_text().replace("masks = 15", "masks = 0")
    (study_folder / "study.toml").write_text(spec)
    study = Study.open(study_folder)
    study.build(workers=0)
    files = {kind: layout.map_file(study.root, "mlp", "trak", kind) for kind in MAP_KINDS}
    first = {kind: path.read_bytes() for kind, path in files.items()}
    files["umap"].unlink()
    place = {name: np.array(array) for name, array in read_map(study, "pca").items()}
    store.write_tensors(files["pca"], place, "of other scores")
    study.build(workers=0)
    assert {kind: path.read_bytes() for kind, path in files.items()} == first
