"""No cache outlives the files that it was filled from.

Every read is made once. Then the study is rebuilt in place with another spec, and what people wrote
is written again. Then every read is made again, as by a server that was never restarted. What is
right is read from a copy in another folder, which no cache knows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.login import picture_key
from dashboard.read import audits, comparisons, curation, effects, studies, supports, upload_trials
from dashboard.read.stored_files import examined, files_stamp
from dashboard.routes import routes
from engine import Study, store
from engine.applications import live
from engine.applications.modeldiff.comparison import comparison_id, side
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.before_after import before_after_files
from engine.applications.unlearning.validation import validation_set
from engine.store import layout
from engine.store.layout import HYBRID, TRAK
from engine.study.decisions import decide
from engine.study.methods import read_quality
from engine.study.names import read_names
from engine.study.rankings import read_index
from engine.study.reader import StudyReader
from engine.study.removal_sets import keep_set
from engine.study.slices import delete_slice, save_slice
from engine.study.tags import tag
from tests.build.test_build import change
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of

FORGET = (3, 5, 8)
METHODS = ("nothing", "finetune")
COMPARED = comparisons.Query("mlp", "mlp", TRAK, HYBRID, comparisons.FOUND, "a", 0, False, ())


def write_by_hand(study: Study, version: int) -> None:
    """Everything that a build does not write; `version` 0 or 1 gives other content."""
    study.verify([1 + version], tests=[0], seeds=1, workers=0)
    audit(study, FORGET, methods=METHODS, models=4, budget=0.2, workers=0)
    delete_slice(study, "mine")
    save_slice(study, "mine", {"label": str(version)})
    tag(study, "mlp", 0, f"version {version}")
    decide(study, version, "keep")
    a, b = side(study, "mlp", TRAK), side(study, "mlp", HYBRID)
    path = layout.comparison_file(study.root, comparison_id(study, a, b, comparisons.DIRECTIONS))
    store.write_json(path, {"version": version}, "")


def settle(root: Path) -> None:
    """Let all files look as if they had last changed a while ago, so that caches keep them."""
    then = time.time() - 60
    for path in [root, *root.rglob("*")]:
        os.utime(path, (then, then))


def the_audit(study: StudyReader) -> audits.Audit:
    return audits.audits(study, "mlp")[-1]


def route_of_pictures(study: StudyReader) -> int:
    """Whether the server has a sheet under the address of the current pictures."""
    client = TestClient(Starlette(routes=CLIENTS.setdefault(study.root, routes(study.root))))
    key = picture_key(study.dataset.fingerprint)
    return client.get(f"/dataloupe/sprites/{key}/test/0.webp").status_code


CLIENTS: dict[Path, Any] = {}


def brittle(study: StudyReader) -> Any:
    return supports.brittle(study, supports.supports(study, "mlp", TRAK, 20))[0].to_pylist()


READS: dict[str, Callable[[StudyReader], Any]] = {
    "spec": lambda study: study.spec.seed,
    "dataset": lambda study: study.dataset.fingerprint,
    "table": lambda study: read_names(study, "test").to_pylist(),
    "examples": lambda study: studies.examples(study, "test", "mlp").table.to_dict("list"),
    "slices": lambda study: studies.kept_slices(study)[0],
    "badge": lambda study: studies.badge(study, "mlp", HYBRID),
    "quality": lambda study: read_quality(study, "mlp"),
    "counterfactual": lambda study: (
        effects.counterfactual(
            study, "mlp", HYBRID, replace(keep_set(study, FORGET, "mine"), key="one key")
        ).change
    ),
    "verifications": lambda study: studies.kept_verifications(study, "mlp")[-1].removed_ids,
    "verifications of supports": lambda study: supports.verifications(study, "mlp")[-1].removed_ids,
    "LDS of each": lambda study: studies.lds_of_each(study, "mlp", TRAK),
    "weights": lambda study: studies.weights(study, "mlp", TRAK).total,
    "directions": lambda study: studies.directions(study, "mlp", TRAK),
    "examined": lambda study: examined(study, files_stamp(study)).summary,
    "supports": lambda study: supports.supports(study, "mlp", HYBRID, 20).logit_gap,
    "data issues": lambda study: supports.data_issues(study, "mlp", TRAK)["lone-support"],
    "label suspicion": lambda study: curation.curation(study, "mlp", TRAK).suspicion.margin,
    "sort orders": lambda study: curation.curation(study, "mlp", TRAK).values["harm"],
    "decisions": lambda study: curation.decisions(study),
    "tags": lambda study: supports.read_tagged(study, "mlp"),
    "brittle": brittle,
    "audits": the_audit,
    "before and after": lambda study: asdict(
        audits.before_and_after(study, the_audit(study), "finetune").oracle
    ),
    "comparison": lambda study: comparisons.comparison_of(study, COMPARED),
    "index": lambda study: read_index(study, "mlp", TRAK).reconstruct(0),
    "validation set": lambda study: validation_set(study, "mlp", FORGET),
    "live": lambda study: live.load(study.root, "mlp").out_to_loss,
    "pictures": lambda study: (route_of_pictures(study), study.dataset.fingerprint),
}


def read_all(
    folder: Path, catch: type[Exception] | tuple[type[Exception], ...] = ()
) -> dict[str, Any]:
    """The result of every read, or its error."""
    found: dict[str, Any] = {}
    for name, read in READS.items():
        try:
            found[name] = read(StudyReader.open(folder))
        except catch as error:
            found[name] = error
    return found


@pytest.fixture(scope="module")
def written(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study, calibrated, with all that people write."""
    study = give_units(copy_of(small_study, tmp_path_factory.mktemp("caches") / "study"))
    write_by_hand(study, 0)
    return study


@pytest.fixture(scope="module")
def rebuilt(written: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each read gives before the rebuild, after it, and without caches."""
    root = tmp_path_factory.mktemp("rebuilt")
    study = copy_of(written, root / "study")
    settle(study.root)

    before = read_all(study.root)
    assert repr(read_all(study.root)) == repr(before)
    study = change(study.root, "seed = 3", "seed = 4")
    study = change(study.root, "test_limit = 60", "test_limit = 59")
    study.build(workers=0, rebuild="data")
    write_by_hand(study, 1)
    settle(study.root)
    after = read_all(study.root, Exception)  # what is stale may not fit, which fails one read
    right = read_all(copy_of(study, root / "copy").root)
    return {"before": before, "after": after, "right": right}


@pytest.mark.parametrize("name", READS)
def test_a_rebuild_is_seen_without_a_restart(rebuilt: dict[str, Any], name: str) -> None:
    np.testing.assert_equal(rebuilt["after"][name], rebuilt["right"][name])
    with pytest.raises(AssertionError):  # or the test shows nothing
        np.testing.assert_equal(rebuilt["before"][name], rebuilt["right"][name])


# --- one file replaced, in the same tick of the clock ---------------------------------------------


def rewrite(path: Path) -> None:
    """Put other numbers in the place of a file, of the same time and mostly of the same size."""
    before = path.stat()
    if path.suffix == ".json":
        content, fingerprint = store.read_json(path), store.json_fingerprint(path)
        for method in content["methods"].values():
            if method["calibration"] is not None:
                slope = method["calibration"]["slope"]
                slope |= {end: value / 2 for end, value in slope.items()}
        store.write_json(path, content, fingerprint)
    else:
        arrays = {
            name: array[::-1].copy() if array.dtype.kind == "f" else array
            for name, array in store.read_tensors(path).items()
        }
        fingerprint, metadata = store.tensors_fingerprint(path), store.read_metadata(path)
        store.write_tensors(path, arrays, fingerprint, metadata)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


ONE_FILE: dict[str, tuple[Callable[[StudyReader], Any], Callable[[StudyReader], Path]]] = {
    "unlearned model": (
        lambda study: asdict(
            audits.before_and_after(study, the_audit(study), "finetune").unlearned
        ),
        lambda study: before_after_files(study, the_audit(study), "finetune")[1][0],
    ),
    "oracle": (
        READS["before and after"],
        lambda study: before_after_files(study, the_audit(study), "finetune")[2][0],
    ),
    "outputs": (
        READS["supports"],
        lambda study: layout.outputs_file(study.root, "mlp", 0, "test"),
    ),
    "mean squares of scores": (
        lambda study: supports.supports(study, "mlp", TRAK, 20).half_width(np.arange(60)),
        lambda study: layout.predicted_file(study.root, "mlp", TRAK),
    ),
    "brittle": (
        lambda study: brittle(study),
        lambda study: layout.quality_file(study.root, "mlp"),
    ),
    "directions": (
        READS["directions"],
        lambda study: layout.train_vectors_file(study.root, "mlp", TRAK, 0),
    ),
    "checkpoint": (
        lambda study: [
            weight.detach().numpy().copy()
            for weight in live.load(study.root, "mlp").models[0].parameters()
        ],
        lambda study: layout.checkpoint_file(study.root, "mlp", 0),
    ),
}


@pytest.mark.parametrize("name", ONE_FILE)
def test_a_replaced_file_is_seen_without_a_restart(
    written: Study, tmp_path: Path, name: str
) -> None:
    study = copy_of(written, tmp_path / "study")
    settle(study.root)
    read, file = ONE_FILE[name]
    before = read(study)
    np.testing.assert_equal(read(study), before)
    rewrite(file(study))
    with pytest.raises(AssertionError):
        np.testing.assert_equal(read(study), before)


def test_a_replaced_upload_is_run_again(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copy_of(small_study, tmp_path / "study")
    upload = study.upload(layout.checkpoint_file(study.root, "mlp", 0))
    calls: list[str] = []
    monkeypatch.setattr(
        upload_trials, "_call", lambda study, function, job, seconds: calls.append(job.upload)
    )
    for _ in range(2):
        upload_trials.report(study, upload, "mlp")
    assert len(calls) == 1
    rewrite(layout.uploaded_weights_file(study.root, upload.files[0].sha256))
    upload_trials.report(study, upload, "mlp")
    assert len(calls) == 2
