"""Quality of scores: how it is stored, and what follows from it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from engine import Study, store
from engine.attribution.evaluation.effect_sizes import TYPICAL
from engine.attribution.evaluation.quality import (
    Calibration,
    Measured,
    MethodQuality,
    Point,
    Quality,
)
from engine.store import layout
from engine.study.measured_quality import read_lds_of_each
from tests.store.test_cache import settle

LDS = Measured(0.31, 0.25, 0.37)
QUALITY = Quality(
    masks={"fit": 30, "validation": 10, "test": 10},
    seeds=1,
    alpha=0.5,
    output="margin",
    preferred="trak",
    methods={
        "trak": MethodQuality(
            title="TRAK",
            settings="2 checkpoints",
            baseline=False,
            lds=LDS,
            validation_lds=0.3,
            by_group={"Bag": LDS},
            calibration=Calibration(Measured(12.5, 11.0, 14.0), 0.1),
            effects=replace(TYPICAL, chosen=0.8),
        )
    },
    checkpoints=[Point("trak", 1, LDS)],
    runs=[],
    tuning=[{"damping": 1.5, "tempering": 0.5, "soft_threshold": 0.0, "lds": 0.3}],
    ceiling=Measured(0.62, 0.55, 0.7),
)


def test_quality_round_trips_through_the_store(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    store.write_json(path, QUALITY.to_dict(), fingerprint="")
    assert Quality.from_dict(store.read_json(path)) == QUALITY


def test_the_badge_shows_the_quality(small_study: Study, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    store.write_json(layout.quality_file(study.root, "mlp"), QUALITY.to_dict(), fingerprint="")
    badge = study.badge()
    assert (badge.lds, badge.lds_low, badge.lds_high, badge.slope) == (0.31, 0.25, 0.37, 10.0)
    assert "LDS 0.310 (0.250 to 0.370) · noise ceiling 0.620 · calibrated" in str(badge)
    assert (badge.ceiling, badge.ceiling_low, badge.ceiling_high) == (0.62, 0.55, 0.7)
    assert badge.ceiling_text.endswith("These scores reach 50% of it.")


def test_a_quality_without_a_noise_ceiling_is_read(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    content = QUALITY.to_dict()
    del content["ceiling"]
    store.write_json(path, content, fingerprint="")
    assert Quality.from_dict(store.read_json(path)) == replace(QUALITY, ceiling=None)


def test_scores_have_no_unit_where_chance_could_explain_them() -> None:
    method = QUALITY.methods["trak"]
    assert method.units == method.calibration
    for changes in (
        {"calibration": None},
        {"calibration": Calibration(Measured(12.5, -1.0, 26.0), 0.1)},
        {"calibration": Calibration(Measured(12.5, 11.0, 14.0), -0.01)},
        {"lds": Measured(0.1, -0.1, 0.3)},
    ):
        assert replace(method, **changes).units is None


def test_quality_is_parsed_once_and_again_when_the_file_changes(
    small_study: Study, tmp_path: Path
) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    store.write_json(layout.quality_file(study.root, "mlp"), QUALITY.to_dict(), fingerprint="")
    settle(layout.quality_file(study.root, "mlp"))
    assert study.quality() is Study.open(study.root).quality()
    changed = replace(QUALITY, seeds=12)
    store.write_json(layout.quality_file(study.root, "mlp"), changed.to_dict(), fingerprint="")
    assert study.quality() == changed
    layout.quality_file(study.root, "mlp").unlink()
    assert study.quality() is None


def test_lds_of_each_test_example(small_study: Study, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    generator = np.random.default_rng(0)
    outputs = {name: generator.normal(size=(60, 12)) for name in ("predicted", "actual")}
    found = {name: array.astype(np.float32) for name, array in outputs.items()}
    store.write_tensors(layout.predicted_file(study.root, "mlp", "trak"), found, "planted")
    wanted = [spearmanr(*pair)[0] for pair in zip(*found.values(), strict=True)]
    np.testing.assert_allclose(read_lds_of_each(study), wanted, atol=1e-12)
