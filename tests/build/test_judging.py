"""Validation runs choose settings, test runs evaluate methods: a small study built completely."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from engine import Study, store
from engine.attribution.datamodels.fit import fit_datamodels
from engine.attribution.datamodels.hybrid import Settings, fit, output_units
from engine.attribution.evaluation.preference import Validation, validation_lds
from engine.build.method_files import write_method
from engine.cli.main import main
from engine.store import layout
from engine.store.errors import StoreError
from engine.study.measured_quality import read_predicted_and_actual
from engine.study.methods import ranked_methods
from engine.study.names import resolve_algorithm
from engine.study.training_datamodels import read_training_datamodel

BANK = "masks = 20"


def build(folder: Path, more: str = "") -> Study:
    spec = folder / "study.toml"
    spec.write_text(spec.read_text().replace("masks = 15", BANK) + more)
    study = Study.open(folder)
    study.build(workers=0)
    return study


@pytest.fixture(scope="module")
def judged(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with tuned TRAK settings, a larger bank, and an additional random method."""
    folder = tmp_path_factory.mktemp("judged") / "study"
    shutil.copytree(
        small_study.root,
        folder,
        ignore=shutil.ignore_patterns("tuning", "trak", "search", "methods", "quality"),
    )
    random = np.random.default_rng(0).normal(size=(60, 300)).astype(np.float32)
    badge = {"method": "Random", "reason": "Made up."}
    write_method(Study.open(folder), "mlp", "random", lambda tests: random[tests], badge, "random")
    return build(folder)


def lds_of(scores: np.ndarray, masks: np.ndarray, outputs: np.ndarray) -> float:
    pairs = zip(scores @ masks.T, outputs.T, strict=True)
    # A row of zeros predicts nothing: its correlation counts as 0.
    found = [stats.spearmanr(*pair).statistic if np.ptp(pair[0]) else 0.0 for pair in pairs]
    return float(np.mean(found))


def test_every_method_is_evaluated_on_the_test_runs(judged: Study) -> None:
    quality = judged.quality()
    assert quality is not None
    assert quality.masks == {"fit": 12, "validation": 4, "test": 4}
    test = judged.bank().part("test")
    for method in ("trak", "random", "hybrid", "datamodel"):
        scores = judged.scores(range(60), method=method)
        found = quality.methods[method].lds
        assert found.mean == pytest.approx(lds_of(scores, test.masks, test.test), abs=2e-3)
        assert found.low <= found.mean <= found.high
    assert abs(quality.methods["random"].lds.mean) < 0.15
    assert quality.methods["trak"].lds.mean > 0.15
    assert {name for name, one in quality.methods.items() if one.baseline} == {
        "embedding",
        "gradient-dot",
    }


def test_the_simplest_of_the_best_methods_on_validation_runs_comes_first(judged: Study) -> None:
    quality = judged.quality()
    assert quality is not None
    validation = judged.bank().part("validation")
    optimism = store.read_json(layout.tuning_file(judged.root, "mlp"))["optimism"]
    for method, subtracted in (("trak", optimism), ("random", 0.0)):
        scores = judged.scores(range(60), method=method)
        both = [
            lds_of(scores, validation.masks[half], validation.test[half])
            for half in (slice(0, None, 2), slice(1, None, 2))
        ]
        expected = np.mean(both) - subtracted
        assert quality.methods[method].validation_lds == pytest.approx(expected, abs=2e-3)
    assert quality.preferred == ranked_methods(judged, resolve_algorithm(judged))[0]
    best = max(one.validation_lds or -1 for one in quality.methods.values())
    assert (quality.methods[quality.preferred].validation_lds or -1) > best - 0.3
    for method in ("hybrid", "datamodel"):
        path = layout.validation_file(judged.root, "mlp", method)
        found = Validation(store.read_tensors(path)["predicted"])
        expected = validation_lds(found, np.ascontiguousarray(validation.test.T))
        assert quality.methods[method].validation_lds == pytest.approx(expected)
    assert judged.badge(method="trak").lds == quality.methods["trak"].lds.mean


def test_the_hybrid_is_fitted_to_fit_and_validation_runs(judged: Study) -> None:
    about = store.read_json(layout.method_file(judged.root, "mlp", "hybrid"))
    seen, test = judged.bank().part("fit", "validation"), judged.bank().part("test")
    settings = Settings(about["ridge"], about["flat"], about["noise"], about["width"])
    tau = torch.from_numpy(judged.scores(range(60), method="trak"))
    arrays = [torch.from_numpy(array) for array in (seen.masks, seen.test)]
    units = output_units(tau, *arrays, settings.ridge)
    found = fit(tau * units, *arrays, settings, torch.from_numpy(test.masks))
    np.testing.assert_allclose(
        judged.scores(range(60), method="hybrid"), found.weights, rtol=1e-4, atol=1e-6
    )
    shown = read_predicted_and_actual(judged, method="hybrid")
    np.testing.assert_allclose(shown["predicted"], found.predicted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(shown["actual"], test.test.T)
    quality = judged.quality()
    assert quality is not None
    inside = np.abs(shown["predicted"] - shown["actual"]) < 1.6449 * shown["deviation"]
    assert quality.methods["hybrid"].coverage == pytest.approx(inside.mean())
    assert judged.badge(method="hybrid").runs == 16


def test_the_settings_with_the_best_validation_lds_are_used(judged: Study) -> None:
    tuning = store.read_json(layout.tuning_file(judged.root, "mlp"))
    solver = store.read_json(layout.solver_file(judged.root, "mlp"))
    best = max(tuning["trials"], key=lambda trial: trial["lds"])
    for name, value in tuning["settings"].items():
        assert solver[name] == value == best[name]


def test_the_checkpoint_curve_ends_at_the_lds_of_the_method(judged: Study) -> None:
    quality = judged.quality()
    assert quality is not None
    if judged.badge(method="trak").soft_threshold == 0:
        last = quality.checkpoints[-1]
        assert last.n == 2
        assert last.lds.mean == pytest.approx(quality.methods["trak"].lds.mean, abs=1e-3)


def test_datamodels_of_training_examples_are_fitted_on_request(
    judged: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], visit: Any
) -> None:
    root = tmp_path / "study"
    shutil.copytree(judged.root, root)
    with pytest.raises(StoreError, match="training_targets = true"):
        read_training_datamodel(judged, 3)
    spec = (root / "study.toml").read_text()
    (root / "study.toml").write_text(spec.replace(BANK, f"{BANK}\ntraining_targets = true"))
    study = Study.open(root)
    study.build(workers=0)
    bank = study.bank()
    both = bank.part("fit", "validation")
    held_out = np.isin(both.numbers, bank.part("validation").numbers)
    wanted = fit_datamodels(both.masks, both.train[:, [3]], held_out).rows(np.array([0]))[0]
    found = read_training_datamodel(study, 3)
    assert found.itself == pytest.approx(wanted[3])
    others = np.delete(wanted, 3)
    np.testing.assert_allclose(found.weights, others[others != 0], rtol=1e-4, atol=1e-6)
    rows, weights = found.strongest(5, -1)
    assert list(weights) == sorted(weights)
    assert (weights < 0).all()
    assert 3 not in rows
    np.testing.assert_allclose(weights, wanted[rows], rtol=1e-4, atol=1e-6)

    assert main(["explain", str(root), "--train", "3", "--k", "5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["row"] for one in printed["hurting"]] == list(rows)
    assert printed["itself"] == found.itself
    app = visit(study, "training", train="3")
    assert not app.exception
    assert any("What its own prediction depends on" in html.proto.body for html in app.get("html"))
    kept = [path.read_bytes() for path in sorted(root.rglob("training/*.safetensors"))]
    study.build(workers=0)
    assert [path.read_bytes() for path in sorted(root.rglob("training/*.safetensors"))] == kept


def test_fixed_settings_are_not_tuned(study_folder: Path) -> None:
    fixed = "\n[trak]\ndamping = 1.5\ntempering = 0.5\nsoft_threshold = 0\n"
    study = build(study_folder, fixed)
    assert not layout.tuning_file(study.root, "mlp").exists()
    assert study.quality() is not None


def test_methods_are_evaluated_again_after_the_bank_grows(judged: Study, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(judged.root, tmp_path / "copy"))
    spec = folder / "study.toml"
    spec.write_text(spec.read_text().replace("masks = 20", "masks = 25"))
    study = Study.open(folder)
    before = layout.run_file(study.root, "mlp", 3, 0).stat().st_mtime_ns
    study.build(workers=0)
    quality = study.quality()
    assert quality is not None
    assert quality.masks["test"] == 5
    assert layout.run_file(study.root, "mlp", 3, 0).stat().st_mtime_ns == before
