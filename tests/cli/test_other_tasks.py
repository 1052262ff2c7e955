"""Regression and multi-label tasks from the command line, from scores to comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study
from engine.cli.main import main
from engine.exchange.uploads.report import Request, quick_report
from engine.store import layout
from engine.store.errors import ImportingError, MissingCapability
from engine.study.examples import read_stacked_arrays
from tests.builders.copies import copy_of

STUDIES = ("brightness_study", "colors_study")


@pytest.fixture(params=STUDIES)
def study(request: pytest.FixtureRequest) -> Study:
    found: Study = request.getfixturevalue(request.param)
    return found


def test_predictions_are_good_and_in_the_labels_unit(
    brightness_study: Study, colors_study: Study
) -> None:
    table, arrays = (
        brightness_study.predictions("test"),
        read_stacked_arrays(brightness_study, "test"),
    )
    labels = np.asarray(arrays["label"][:])
    np.testing.assert_allclose(table["predicted"] - labels, table["error"])
    assert table["error"].std() < 0.4 * labels.std()
    assert [float(one) for one in brightness_study.table("test")["label"]] == pytest.approx(
        labels, rel=1e-5
    )
    table = colors_study.predictions("test")
    assert table["share_right"].mean() > 0.7
    same = table["predicted"] == colors_study.table("test")["label"]
    assert (same == table["correct"]).all()
    assert colors_study.dataset.classes == ["blue", "green", "red"]


VERBS = {
    "explain": ["explain", "{root}", "--test", "test-3"],
    "explain as JSON": ["explain", "{root}", "--test", "test-3", "--json"],
    "whatif": ["whatif", "{root}", "--remove", "train-1,train-2"],
    "evaluate": ["evaluate", "{root}", "--by-group"],
    "methods": ["methods", "{root}"],
    "doctor": ["doctor", "{root}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works(verb: str, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([part.format(root=study.root) for part in VERBS[verb]]) == 0
    printed = capsys.readouterr().out
    assert "Traceback" not in printed
    if verb == "explain as JSON":
        assert json.loads(printed)["output_name"] == study.dataset.output


REFUSED = {
    "brittle": ["brittle", "{root}"],
    "unlearn": ["unlearn", "{root}", "--forget", "train-1", "--audit", "4"],
    "unlearn a file": ["unlearn", "{root}", "--forget", "train-1", "--out", "{root}/m.safetensors"],
}


@pytest.mark.parametrize("verb", REFUSED)
def test_what_needs_classes_is_refused_in_one_line(
    verb: str, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(root=study.root) for part in REFUSED[verb]]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "cannot be computed for this study. " in printed.err
    assert study.spec.task.name in printed.err


def test_jobs_that_need_classes_are_refused(study: Study) -> None:
    from engine.applications.brittle import supports
    from engine.applications.unlearning import audit_job, certificate, predicted_effect

    for check in (certificate.check_job, predicted_effect.check_job, audit_job.check_job):
        with pytest.raises(MissingCapability, match="Unlearning cannot"):
            check(study, {"forget": ["train-1"]})
    with pytest.raises(MissingCapability, match="Brittle predictions cannot"):
        supports.find(study)


def test_removals_are_verified_and_compared(study: Study, tmp_path: Path) -> None:
    own = copy_of(study, tmp_path / "own")
    verified = own.verify(["train-1"], tests=["test-3"], seeds=2, control=True, workers=0)
    (outcome,) = verified.outcomes
    assert (outcome.flips, outcome.flipped) == (None, False)
    assert len(verified.control_removed) == 1


def test_an_upload_is_compared_by_its_outputs(brightness_study: Study, tmp_path: Path) -> None:
    own = copy_of(brightness_study, tmp_path / "own")
    name = next(iter(own.spec.algorithms))
    upload = own.upload(layout.checkpoint_file(own.root, name, 0), name="mine")
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:  # a quick report forbids its process to write files
        found = pool.submit(quick_report, Request(own.root, upload.id, name)).result()
    assert (found.accuracy, found.by_group, found.their_accuracy) == (None, {}, None)
    assert found.correlation is not None
    assert found.correlation > 0.9
    assert found.output == pytest.approx(found.their_output, rel=0.2)
    assert not [line for line in found.warnings if "another scale" in line]
    assert len(found.rows) == found.differing == len(found.predicted)


def bank_of(study: Study, folder: Path, **changes: Any) -> Path:
    """The study's own run bank in files, as from another tool."""
    bank = study.bank()
    folder.mkdir()
    files = {"masks": bank.masks, "train_margins": bank.train, "test_margins": bank.test}
    for name, array in {**files, **changes}.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_a_run_bank_is_imported_without_classes(study: Study, tmp_path: Path) -> None:
    own = copy_of(study, tmp_path / "own")
    about = own.import_bank(bank_of(own, tmp_path / "bank"))
    assert about.output == own.dataset.output
    assert any("Outputs are better on examples" in note for note in about.notes)
    (tmp_path / "bank" / "test_margins.npy").unlink()
    (tmp_path / "bank" / "train_margins.npy").unlink()
    np.save(tmp_path / "bank" / "test_logits.npy", np.zeros((len(own.bank().masks), 30, 3)))
    with pytest.raises(ImportingError, match="holds class logits"):
        own.import_bank(tmp_path / "bank", replace=True)
