"""Features stored in fewer bits: the same scores but for rounding, and old studies stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import store
from engine.api import Study
from engine.attribution.scores.packed_rows import Storage
from engine.build.stages.trak import solver_fingerprint
from engine.store import layout
from engine.store.errors import StaleError
from engine.study.score_matrices import read_score_matrix, stored_solver
from tests.builders.built_once import built_once
from tests.conftest import SMALL_STUDY


def spec(storage: str) -> str:
    trak = f'[trak]\nsolver = "primal"\nproj_dim = 200\nstorage = "{storage}"\n'
    return SMALL_STUDY.replace("masks = 15", "masks = 0") + trak


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """The same study with each storage."""

    def make(storage: str) -> Study:
        def create(root: Path) -> Study:
            study = Study.create(root, spec(storage))
            study.build(workers=0)
            return study

        return Study.open(built_once(tmp_path_factory, f"storage-{storage}", create))

    return {storage: make(storage) for storage in ("float32", "int8", "int4")}


@pytest.mark.parametrize(("storage", "least"), [("int8", 0.9999), ("int4", 0.98)])
def test_scores_are_almost_those_of_float32(
    studies: dict[str, Study], storage: Storage, least: float
) -> None:
    exact, packed = (
        read_score_matrix(studies[s]).rows(np.arange(60)) for s in ("float32", storage)
    )
    assert not np.array_equal(exact, packed)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(exact, packed, strict=True)]
    assert np.mean(correlations) > least
    assert stored_solver(studies[storage], "mlp").storage == storage


@pytest.mark.parametrize(("storage", "ratio"), [("int8", 3.8), ("int4", 6)])
def test_files_are_smaller(studies: dict[str, Study], storage: str, ratio: float) -> None:
    exact, packed = (
        sum(tensor.nbytes for tensor in store.read_tensors(path).values())
        for path in (
            layout.features_file(studies[s].root, "mlp", 0, 0) for s in ("float32", storage)
        )
    )
    assert exact / packed > ratio


def test_another_storage_is_other_scores(studies: dict[str, Study], tmp_path: Path) -> None:
    root = shutil.copytree(studies["int8"].root, tmp_path / "study")
    layout.spec_file(root).write_text(spec("int4"))
    with pytest.raises(StaleError, match="--rebuild trak"):
        Study.open(root).build(workers=0)


def test_studies_from_before_the_choice_stay_as_they_are(
    studies: dict[str, Study], tmp_path: Path
) -> None:
    """Neither their spec nor their solver names a storage, and their features are float32."""
    study = Study.open(shutil.copytree(studies["float32"].root, tmp_path / "study"))
    path = layout.solver_file(study.root, "mlp")
    layout.spec_file(study.root).write_text(spec("auto").replace('storage = "auto"\n', ""))
    study = Study.open(study.root)
    before = dict(store.read_json(path))
    del before["storage"], before["precision"]
    store.write_json(path, before, solver_fingerprint(study, "mlp"))
    written = layout.features_file(study.root, "mlp", 0, 0).stat().st_mtime_ns
    study.build(workers=0)
    assert layout.features_file(study.root, "mlp", 0, 0).stat().st_mtime_ns == written
    assert stored_solver(study, "mlp").storage == "float32"
