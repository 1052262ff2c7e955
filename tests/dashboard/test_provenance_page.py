"""The Provenance page in every state."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import store
from engine.api import Study
from engine.attribution.datamodels.run_bank import BankImport
from engine.store import layout
from tests.builders.copies import copy_of
from tests.builders.page_contents import words
from tests.builders.synthetic_study import write_study


def test_provenance_shows_fingerprints_versions_and_files(
    visit: Any, complete_study: Study, tmp_path: Path
) -> None:
    complete_study = copy_of(complete_study, tmp_path / "copy")
    store.write_tensors(
        layout.checkpoint_file(complete_study.root, "cnn", 0),
        {"w": np.zeros(2, np.float32)},
        "synthetic",
        {"seed": 1234, "device": "cpu", "torch": "9.9"},
    )
    app = visit(complete_study, "provenance")
    shown = words(app)
    assert complete_study.dataset.fingerprint in shown
    assert "seed 1234" in shown
    assert "torch 9.9" in shown
    assert app.code[1].value == layout.spec_file(complete_study.root).read_text().strip()
    assert f"dataloupe build {complete_study.root}" in app.code[0].value
    files = [path for path in (complete_study.root / "data").rglob("*") if path.is_file()]
    assert f"<td>complete</td><td>{len(files)}</td>" in shown
    assert "all intact" not in shown  # Files are only verified on request.


def test_provenance_shows_the_model_output_of_an_imported_bank(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    assert "Run bank" not in words(visit(study, "provenance"))
    about = BankImport(
        fingerprint="f",
        folder="<b>cifar</b>",
        files={"train_masks.npy": "0123456789abcdef" * 4},
        output="max-margin",
        runs=1200,
        masks=1000,
        alpha=0.5,
        train=False,
        shards=1,
        notes=["Its outputs are max-margins."],
        dataset=study.dataset.fingerprint,
    )
    store.write_json(layout.bank_import_file(study.root, "cnn"), asdict(about), "f")
    shown = words(visit(study, "provenance"))
    assert "Run bank, imported" in shown
    assert "1,200 on 1,000 masks" in shown
    assert "the largest other (not the margin used here)" in shown
    assert "&lt;b&gt;cifar&lt;/b&gt;: train_masks.npy" in shown


def test_checksums_are_verified_on_demand(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study, "provenance")
    app.button(key="verify").click().run()
    assert "files, all intact" in words(app)
    path = layout.totals_file(study.root, "cnn", "trak")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    app.run()
    assert "all intact" not in words(app)
    assert "Files have changed" in words(app)
    app.button(key="verify").click().run()
    assert "1 of" in words(app)
    assert str(path) in words(app)


@pytest.mark.parametrize("stage", ["spec", "data"])
def test_provenance_of_a_study_that_is_being_built(visit: Any, tmp_path: Path, stage: Any) -> None:
    shown = words(visit(write_study(tmp_path / "s", stage=stage), "provenance"))
    assert ("Not read yet" in shown) is (stage == "spec")
    assert "None trained yet" in shown
    assert "<td>0 of 5</td><td>0</td><td>0 B</td><td>–</td>" in shown
