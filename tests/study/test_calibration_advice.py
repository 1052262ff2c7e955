"""What is advised is missing: never what the study has, or a build is making."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Study, store
from engine.store import layout
from engine.store.layout import TRAK
from engine.study.calibration_advice import calibration_advice
from engine.study.lock import is_locked, locked
from engine.study.methods import method_choice
from engine.study.training_time import seconds_per_training
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.synthetic_study import write_study


@pytest.mark.parametrize(
    ("bank", "building", "words", "never"),
    [
        (False, False, "add [subset_runs] with masks = 200", "running"),
        (True, False, "0 of 24 subset runs are done", "add [subset_runs]"),
        (True, True, "A build is running that will calibrate", "dataloupe build"),
    ],
    ids=["nothing there", "unfinished", "being built"],
)
def test_advice_follows_the_study(
    tmp_path: Path, bank: bool, building: bool, words: str, never: str
) -> None:
    study = write_study(tmp_path / "s")
    if bank:
        spec = layout.spec_file(study.root)
        spec.write_text(spec.read_text() + "[subset_runs]\nmasks = 20\n")
        study = Study.open(study.root)
    algorithm = next(iter(study.spec.algorithms))
    with locked(study) if building else contextlib.nullcontext():
        assert is_locked(study) == building
        advice = calibration_advice(study, algorithm, TRAK)
    assert words in advice
    assert never not in advice
    assert not is_locked(study)


def test_a_method_at_chance_is_marked_and_a_calibrated_one_needs_nothing(
    small_study: Study, tmp_path: Path
) -> None:
    study = give_units(copy_of(small_study, tmp_path / "s"))
    assert calibration_advice(study, "mlp", TRAK) == ""
    assert method_choice(study, "mlp", TRAK) == "TRAK"
    quality = study.quality("mlp")
    assert quality is not None
    one = quality.methods[TRAK]
    bad = replace(one, lds=replace(one.lds, low=-0.1), calibration=None, effects=None)
    path = layout.quality_file(study.root, "mlp")
    changed = replace(quality, methods={**quality.methods, TRAK: bad})
    store.write_json(path, changed.to_dict(), store.json_fingerprint(path))
    assert method_choice(study, "mlp", TRAK) == "TRAK · no better than chance"
    assert "choose another method" in calibration_advice(study, "mlp", TRAK)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [([0, 10, 20, 500, 510], 10.0), ([0, 0.001, 0.002], None), ([5], None)],
    ids=["with a pause", "copied", "one model"],
)
def test_the_time_of_a_training(tmp_path: Path, times: list[float], seconds: float | None) -> None:
    study = write_study(tmp_path / "s")
    (name,) = study.spec.algorithms
    spec = layout.spec_file(study.root)
    head = f"[algorithms.{name}]"
    spec.write_text(spec.read_text().replace(head, f"{head}\ncheckpoints = {len(times)}"))
    study = Study.open(study.root)
    assert study.checkpoints(name) == len(times)
    for checkpoint, time in enumerate(times):
        path = layout.checkpoint_file(study.root, name, checkpoint)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 + time, 1e9 + time))
    found = seconds_per_training(study, name)
    assert found == (None if seconds is None else pytest.approx(seconds))
