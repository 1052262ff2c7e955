"""Comparing two algorithms of a study: an upload becomes one, a planted shortcut is found and
confirmed, and what is found is kept."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import Study, store
from engine.cli import main
from engine.errors import DataError, DataloupeError, StoreError
from engine.modeldiff.compare import compare, read_comparison, side
from engine.modeldiff.hypothesis import measure, try_all
from engine.modeldiff.job import check_hypothesis, check_job, run_hypothesis, run_job
from engine.uploads.keeping import delete
from tests.planted import CLASS, write_planted


def silent(done: int, total: int, what: str) -> None:
    """Nobody is told."""


# --- an upload is an algorithm -------------------------------------------------------------------


@pytest.fixture(scope="module")
def copied(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study, to write into."""
    root = tmp_path_factory.mktemp("compare") / "study"
    shutil.copytree(small_study.root, root)
    return Study.open(root)


def test_the_study_s_own_models_uploaded_have_its_own_scores(copied: Study) -> None:
    own = [copied.checkpoint_file("mlp", number) for number in range(2)]
    upload = copied.upload(*own, name="the same").id
    steps: list[tuple[int, int, str]] = []
    found = run_job(
        copied, {"a": "mlp", "b": upload, "workers": 0}, lambda *step: steps.append(step)
    )
    tests = np.arange(copied.dataset.n_test)
    np.testing.assert_array_equal(
        copied.scores(tests, upload, "trak"), copied.scores(tests, "mlp", "trak")
    )
    assert copied.predictions("test", upload).equals(copied.predictions("test", "mlp"))
    assert copied.explain(3, 5, upload).supporting
    about = read_comparison(copied, found["comparison"])
    assert copied.compare("mlp", upload) == about
    assert about["alignment"] == pytest.approx(1, abs=1e-5)
    assert about["indicative"]
    assert about["wanted"] == 3
    for one in [*about["directions"]["a"], *about["directions"]["b"]]:
        assert abs(one["own_variance"] - one["other_variance"]) < 1e-6
        assert one["significant"] is not True
    assert {what for _, _, what in steps} >= {"Attributing their predictions", "Done"}
    assert all(0 <= done <= total for done, total, _ in steps)
    assert upload not in {step.algorithm for step in copied.progress()}
    copied.build(workers=0)  # a build takes no notice of uploads
    delete(copied, upload)
    with pytest.raises(DataloupeError, match="no algorithm"):
        copied.algorithm(upload)
    assert not copied.algorithm_folder(upload).exists()
    assert not copied.comparison_files()


def test_the_command_line_compares_files(
    copied: Study, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    shutil.copy(copied.checkpoint_file("mlp", 1), path)
    command = ["compare", str(copied.root), "--with", str(path), "--arch", "mlp", "--workers", "0"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "mine.safetensors is mlp" in said
    assert "they agree on" in said
    assert "What mlp does and mine.safetensors does not" in said
    assert "Indicative only" in said
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"]["checkpoints"] == 1
    assert len(found["directions"]["a"]) == 5
    path.write_bytes(b"\x80\x04pickle")
    assert main(command) == 2
    assert "is a pickle" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "none")]) == 2
    assert main(["compare", str(copied.root), "--algorithms", "mlp", "mlp"]) == 2
    for upload in copied.uploads:
        delete(copied, upload)


def test_what_cannot_be_compared_is_refused(copied: Study, study_folder: Path) -> None:
    with pytest.raises(DataloupeError, match="no algorithm"):
        side(copied, "no such")
    with pytest.raises(DataloupeError, match="no scores by method"):
        side(copied, "mlp", "no such")
    with pytest.raises(StoreError, match="no scores yet"):
        side(Study.open(study_folder), "mlp")
    with pytest.raises(DataloupeError, match="with itself"):
        compare(copied, side(copied, "mlp"), side(copied, "mlp"))


def test_any_two_methods_are_compared(copied: Study) -> None:
    """A datamodel and TRAK of one algorithm: never judged, as no null is known for them."""
    found = compare(copied, side(copied, "mlp", "datamodel"), side(copied, "mlp", "trak"), 2)
    about = read_comparison(copied, found)
    assert about["a"]["method"] == "datamodel"
    assert "TRAK scores of checkpoints only" in about["significance"]
    assert all(one["significant"] is None for one in about["directions"]["a"])


# --- a planted shortcut --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, dict[str, np.ndarray]]:
    """Two algorithms, one of which sees a patch. Some fifteen seconds."""
    study, carries = write_planted(
        tmp_path_factory.mktemp("planted") / "study", n_train=1500, n_test=400, checkpoints=4
    )
    study.build(workers=0)
    return study, carries


@pytest.fixture(scope="module")
def comparison(planted: tuple[Study, dict[str, np.ndarray]]) -> dict[str, Any]:
    study, _ = planted
    found = run_job(study, {"a": "sees", "b": "blind"}, silent)["comparison"]
    return read_comparison(study, found)


def test_the_shortcut_is_the_strongest_direction(
    planted: tuple[Study, dict[str, np.ndarray]], comparison: dict[str, Any]
) -> None:
    study, carries = planted
    first = comparison["directions"]["a"][0]
    assert carries["train"][first["positive"]].mean() >= 0.9
    assert carries["test"][first["tests"]].mean() >= 0.6
    assert first["significant"]
    assert first["own_variance"] > 2 * first["other_variance"]
    label = study.dataset.classes[CLASS]
    assert next(iter(first["positive_classes"])) == label
    assert f"examples of {label}" in first["reading"]


def test_what_was_found_is_kept_and_not_found_twice(
    planted: tuple[Study, dict[str, np.ndarray]], comparison: dict[str, Any]
) -> None:
    study, _ = planted
    arrays = store.read_tensors(study.comparison_arrays_file(comparison["id"]), verify=True)
    assert arrays["a_weights"].shape == (5, study.dataset.n_train)
    assert arrays["b_projections"].shape == (study.dataset.n_test, 5)
    before = study.comparison_file(comparison["id"]).stat().st_mtime_ns
    assert run_job(study, {"a": "sees", "b": "blind"}, silent)["comparison"] == comparison["id"]
    assert study.comparison_file(comparison["id"]).stat().st_mtime_ns == before


def test_trying_all_ranks_the_patch_first(planted: tuple[Study, dict[str, np.ndarray]]) -> None:
    study, carries = planted
    rows = np.flatnonzero(~carries["test"])[:200]
    options = {"patch": {"size": 5 / 28}}
    found = try_all(study, "sees", "blind", (0.5, 1.0), rows.tolist(), options)
    assert found[0].name == "patch"
    assert min(found[0].adjusted) < 0.05
    effect = found[0].effects[-1]
    assert abs(effect.b["probability"].mean) < abs(effect.a["probability"].mean) / 4
    assert effect.difference["probability"].high < 0  # who sees it loses
    assert json.loads(json.dumps([one.to_dict() for one in found]))
    alone = measure(study, "sees", "blind", "patch", options["patch"], (0.5, 1.0), rows.tolist())
    assert alone.effects == found[0].effects


def test_a_hypothesis_is_a_job_whose_result_is_kept(
    planted: tuple[Study, dict[str, np.ndarray]], comparison: dict[str, Any]
) -> None:
    study, _ = planted
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(buffer, "PNG")
    asked = {
        "comparison": comparison["id"],
        "names": ["texture", "blur"],
        "rows": [0, 1, 2, 3, 4],
        "intensities": [1.0],
        "options": {"texture": {"texture": base64.b64encode(buffer.getvalue()).decode()}},
    }
    name = run_hypothesis(study, asked, silent)["hypothesis"]
    kept = store.read_json(study.hypothesis_file(comparison["id"], name))
    assert {one["name"] for one in kept["tested"]} == {"texture", "blur"}
    assert study.hypothesis_files(comparison["id"])
    assert study.comparison_files() == [study.comparison_file(comparison["id"])]
    for wrong in ({"comparison": "../../study"}, {**asked, "names": ["melt"]}):
        with pytest.raises(DataloupeError):
            check_hypothesis(study, wrong)
    broken = {"texture": {"texture": base64.b64encode(b"no picture").decode()}}
    with pytest.raises(DataError, match="Your texture"):
        run_hypothesis(study, {**asked, "options": broken}, silent)


def test_the_queue_s_kinds_are_checked_without_torch() -> None:
    script = (
        "import sys\n"
        "from engine.jobs.kinds import KINDS, _load\n"
        "for name in ('compare', 'hypothesis'): _load(KINDS[name].check)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_job_is_checked_before_it_is_queued(
    planted: tuple[Study, dict[str, np.ndarray]],
) -> None:
    study, _ = planted
    found = check_job(study, {"a": "sees", "b": "blind"})
    assert (found["method_a"], found["directions"]) == ("trak", 5)
    for wrong in ({"b": "no"}, {"b": "sees"}, {"b": "blind", "method_b": "no"}):
        with pytest.raises(DataloupeError):
            check_job(study, {"a": "sees", **wrong})
