"""How far scores can be trusted: what is stored of it, and what follows from it."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine import Study, store
from engine.quality import Calibration, Measured, MethodQuality, Point, Quality

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
            by_class={"Bag": LDS},
            calibration=Calibration(Measured(12.5, 11.0, 14.0), 0.1),
        )
    },
    checkpoints=[Point("trak", 1, LDS)],
    runs=[],
    tuning=[{"damping": 1.5, "tempering": 0.5, "soft_threshold": 0.0, "lds": 0.3}],
)


def test_it_survives_the_store(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    store.write_json(path, QUALITY.to_dict(), made_from="")
    assert Quality.from_dict(store.read_json(path)) == QUALITY


def test_the_badge_carries_it(small_study: Study, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    assert study.quality() is None
    store.write_json(study.quality_file("mlp"), QUALITY.to_dict(), made_from="")
    badge = study.badge()
    assert (badge.lds, badge.lds_low, badge.lds_high, badge.slope) == (0.31, 0.25, 0.37, 12.5)
    assert "LDS 0.310 [0.250, 0.370] · calibrated" in str(badge)
