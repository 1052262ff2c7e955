"""Comparing two algorithms of a study: an upload becomes one, a planted shortcut is found and
confirmed, and what is found is kept."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from engine import Study, store
from engine.applications.case_studies.run import CASES, open_case, run
from engine.applications.case_studies.shortcut import CLASS
from engine.applications.modeldiff.comparison import compare, read_comparison, side
from engine.applications.modeldiff.hypothesis import measure, try_all
from engine.applications.modeldiff.job import check_hypothesis, check_job, run_hypothesis, run_job
from engine.applications.modeldiff.report_file import as_html
from engine.cli.main import main
from engine.data.templates import case_names
from engine.exchange.uploads.keeping import accept_files, delete, trial_worker
from engine.store import layout
from engine.store.errors import DataError, DataloupeError, SpecError, StoreError, UploadError
from engine.study.names import resolve_algorithm
from engine.study.uploads import ENOUGH
from tests.builders.copies import copy_of
from tests.builders.hostile_uploads import fitting_weights, mlp_shapes, safetensors
from tests.builders.planted_shortcut import carries, write_planted

ROOT = Path(__file__).parents[2]


def silent(done: int, total: int, what: str) -> None:
    """Report nothing."""


# --- an upload is an algorithm -------------------------------------------------------------------


@pytest.fixture
def copied(small_study: Study, tmp_path: Path) -> Study:
    """The small study, to write into."""
    return copy_of(small_study, tmp_path / "copied")


def test_the_study_s_own_models_uploaded_have_its_own_scores(copied: Study) -> None:
    own = [layout.checkpoint_file(copied.root, "mlp", number) for number in range(2)]
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
        resolve_algorithm(copied, upload)
    assert not layout.algorithm_folder(copied.root, upload).exists()
    assert not layout.comparison_files(copied.root)


def test_the_command_line_compares_files(
    copied: Study, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    shutil.copy(layout.checkpoint_file(copied.root, "mlp", 1), path)
    command = ["compare", str(copied.root), "--with", str(path), "--arch", "mlp", "--workers", "0"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "mine.safetensors is mlp" in output
    assert "they agree on" in output
    assert "What mlp does and mine.safetensors does not" in output
    assert "Indicative only" in output
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"]["checkpoints"] == 1
    assert len(found["directions"]["a"]) == 5
    path.write_bytes(b"\x80\x04pickle")
    assert main(command) == 2
    assert "is a pickle" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "none")]) == 2
    assert main(["compare", str(copied.root), "--algorithms", "mlp", "mlp"]) == 2


STEPS = (
    "Running the uploaded models",
    "Attributing their predictions",
    "Ranking training examples",
    "Comparing attributions",
    "Finding what chance alone does",
    "Done",
)


@pytest.mark.parametrize("step", STEPS)
def test_an_upload_deleted_while_it_is_compared_leaves_nothing(
    copied: Study, step: str, tmp_path: Path
) -> None:
    files = [layout.checkpoint_file(copied.root, "mlp", number) for number in range(2)]
    third = {name: 1.01 * array for name, array in store.read_tensors(files[0]).items()}
    save_file(third, tmp_path / "third.safetensors")  # Chance is known from three checkpoints on.
    upload = copied.upload(*files, tmp_path / "third.safetensors", name="<b>mine</b>")
    before = {path for path in copied.root.rglob("*") if upload.id not in str(path)}
    seen: list[str] = []

    def delete_then(done: int, total: int, what: str) -> None:
        seen.append(what)
        if what == step and copied.uploads:
            delete(copied, upload.id)

    with pytest.raises(UploadError, match=r"“<b>mine</b>” was deleted meanwhile"):
        run_job(copied, {"a": "mlp", "b": upload.id, "workers": 0}, delete_then)
    assert seen[-1] == step  # and no longer work was done for nothing
    assert not layout.comparison_files(copied.root)
    assert not layout.uploaded_weights_files(copied.root)
    left = {path for path in copied.root.rglob("*") if path.is_file()} - before
    assert not left


def test_an_upload_deleted_while_a_hypothesis_is_tested(copied: Study) -> None:
    upload = copied.upload(layout.checkpoint_file(copied.root, "mlp", 1), name="mine")
    found = run_job(copied, {"a": "mlp", "b": upload.id, "workers": 0}, silent)["comparison"]

    def delete_then(done: int, total: int, what: str) -> None:
        if what == "Done":
            delete(copied, upload.id)

    with pytest.raises(UploadError, match="was deleted meanwhile"):
        run_hypothesis(copied, {"comparison": found, "names": ["blur"]}, delete_then)
    assert not layout.hypothesis_files(copied.root, found)


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
    """A datamodel and TRAK of one algorithm: never judged, for methods differ of themselves."""
    found = compare(copied, side(copied, "mlp", "datamodel"), side(copied, "mlp", "trak"), 2)
    about = read_comparison(copied, found)
    assert about["a"]["method"] == "datamodel"
    assert "two methods differ even for the same algorithm" in about["significance"]
    assert all(one["significant"] is None for one in about["directions"]["a"])


def test_a_text_classifier_is_compared_like_any_other(text_study: Study, tmp_path: Path) -> None:
    shutil.copytree(text_study.root, tmp_path / "study")
    study = Study.open(tmp_path / "study")
    upload = study.upload(layout.checkpoint_file(study.root, "words", 0), name="half of it")
    assert upload.architecture == "embedding-bag"
    assert upload.preprocessing == "token ids of the study's own vocabulary."
    about = study.compare("words", upload.id, workers=0)
    assert about["directions"]["a"][0]["reading"].startswith("On examples of")
    report = as_html(study, about["id"])
    assert report.startswith("<!doctype html>")
    assert 'class="bar a"' in report
    assert 'style="width:200px"' in report  # The longest, of all directions.
    worker = trial_worker(study)
    weights = store.read_tensors(layout.checkpoint_file(study.root, "words", 0))
    for name, change, says in (
        ("vocabulary", lambda value: value[:-1], r"is \[\d+, \d+\] where embedding-bag has"),
        ("picture", lambda value: np.zeros((3, 3), np.float32), "does not match: "),
    ):
        path = tmp_path / f"{name}.safetensors"
        longest = max(weights, key=lambda key: weights[key].size)
        store.write_tensors(path, {**weights, longest: change(weights[longest])}, "")
        with pytest.raises(UploadError, match=says):
            accept_files(study, [path], worker=worker)
    path = tmp_path / "mlp.safetensors"
    path.write_bytes(safetensors(fitting_weights(mlp_shapes(784, 32, 10))))
    for architecture in (None, "mlp"):
        with pytest.raises(
            UploadError, match=r"match: (compared with embedding-bag|this .* is for pictures)"
        ):
            accept_files(study, [path], "", architecture, worker)
    worker.end()


# --- a planted shortcut --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """Two algorithms, one of which sees a patch, and their comparison. Some fifteen seconds."""
    study = write_planted(tmp_path_factory.mktemp("planted") / "case", 1500, 400)
    study.build(workers=0)
    return study, run_job(study, {"a": "sees", "b": "covered"}, silent)["comparison"]


@pytest.fixture
def planted(shared_planted: tuple[Study, str], tmp_path: Path) -> Study:
    """A copy of it, to write into."""
    root = copy_of(shared_planted[0], tmp_path / "case").root
    return Study.open(root, trust=True)  # trust is bound to the place of a study


@pytest.fixture(scope="module")
def comparison(shared_planted: tuple[Study, str]) -> dict[str, Any]:
    return read_comparison(*shared_planted)


def test_the_shortcut_is_the_strongest_direction(
    shared_planted: tuple[Study, str], comparison: dict[str, Any]
) -> None:
    study = shared_planted[0]
    patched = carries(study)
    first = comparison["directions"]["a"][0]
    assert patched["train"][first["positive"]].mean() >= 0.9
    assert patched["test"][first["tests"]].mean() >= 0.6
    assert first["significant"]
    assert first["own_variance"] > 2 * first["other_variance"]
    label = study.dataset.classes[CLASS]
    assert next(iter(first["positive_groups"])) == label
    assert f"sees relies on examples of {label} (100%" in first["reading"]
    assert "covered less so" in first["reading"]
    for one in comparison["directions"]["a"] + comparison["directions"]["b"]:
        assert ("less so" in one["reading"]) == (one["own_variance"] > one["other_variance"])


def test_what_was_found_is_kept_and_not_found_twice(
    shared_planted: tuple[Study, str], comparison: dict[str, Any]
) -> None:
    study = shared_planted[0]
    arrays = store.read_tensors(
        layout.comparison_arrays_file(study.root, comparison["id"]), verify=True
    )
    assert arrays["a_weights"].shape == (5, study.dataset.n_train)
    assert arrays["b_projections"].shape == (study.dataset.n_test, 5)
    before = layout.comparison_file(study.root, comparison["id"]).stat().st_mtime_ns
    assert run_job(study, {"a": "sees", "b": "covered"}, silent)["comparison"] == comparison["id"]
    assert layout.comparison_file(study.root, comparison["id"]).stat().st_mtime_ns == before


def test_trying_all_ranks_the_patch_first(shared_planted: tuple[Study, str]) -> None:
    study = shared_planted[0]
    rows = np.flatnonzero(~carries(study)["test"])[:200]
    options = {"patch": {"kind": "plain"}}
    found = try_all(study, "sees", "covered", (0.5, 1.0), rows.tolist(), options)
    assert found[0].name == "patch"
    assert min(found[0].adjusted) < 0.05
    effect = found[0].effects[-1]
    assert abs(effect.b["probability"].mean) < abs(effect.a["probability"].mean) / 4
    assert effect.difference["probability"].high < 0  # who sees it loses
    assert json.loads(json.dumps([one.to_dict() for one in found]))
    alone = measure(study, "sees", "covered", "patch", options["patch"], (0.5, 1.0), rows.tolist())
    assert alone.effects == found[0].effects


def test_a_hypothesis_is_a_job_whose_result_is_kept(
    planted: Study, comparison: dict[str, Any]
) -> None:
    study = planted
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(buffer, "PNG")
    request = {
        "comparison": comparison["id"],
        "names": ["texture", "blur"],
        "rows": [0, 1, 2, 3, 4],
        "intensities": [1.0],
        "options": {"texture": {"texture": base64.b64encode(buffer.getvalue()).decode()}},
    }
    name = run_hypothesis(study, request, silent)["hypothesis"]
    kept = store.read_json(layout.hypothesis_file(study.root, comparison["id"], name))
    assert {one["name"] for one in kept["tested"]} == {"texture", "blur"}
    assert layout.hypothesis_files(study.root, comparison["id"])
    assert layout.comparison_files(study.root) == [
        layout.comparison_file(study.root, comparison["id"])
    ]
    for wrong in ({"comparison": "../../study"}, {**request, "names": ["melt"]}):
        with pytest.raises(DataloupeError):
            check_hypothesis(study, wrong)
    broken = {"texture": {"texture": base64.b64encode(b"no picture").decode()}}
    with pytest.raises(DataError, match="Your texture"):
        run_hypothesis(study, {**request, "options": broken}, silent)


def test_the_queue_s_kinds_are_checked_without_torch() -> None:
    script = (
        "import sys\n"
        "from engine.running.jobs.kinds import KINDS, _load\n"
        "for name in ('compare', 'hypothesis'): _load(KINDS[name].check)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_job_is_checked_before_it_is_queued(shared_planted: tuple[Study, str]) -> None:
    study = shared_planted[0]
    found = check_job(study, {"a": "sees", "b": "covered"})
    assert (found["method_a"], found["directions"]) == ("trak", 5)
    for wrong in ({"b": "no"}, {"b": "sees"}, {"b": "covered", "method_b": "no"}):
        with pytest.raises(DataloupeError):
            check_job(study, {"a": "sees", **wrong})


# --- case studies --------------------------------------------------------------------------------


def test_the_shortcut_s_case_study_finds_its_plant_and_tells_it(
    planted: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    study = planted
    assert open_case("shortcut", study.root).root == study.root
    outcome = run(study, "shortcut", workers=0)
    assert list(outcome.accuracy) == ["covered", "sees"]
    assert outcome.planted[0] >= 0.9
    assert outcome.comparison["directions"]["b"][0]["significant"]
    assert outcome.tried[0]["name"] == "patch"
    assert run(study, "shortcut", workers=0) == outcome  # nothing is made twice
    assert json.loads(json.dumps(asdict(outcome)))
    command = ["case-study", "shortcut", str(study.root), "--workers", "0"]
    assert main(command) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert re.search(r"direction 1 of sees, (9\d|100)% have the planted feature", output)
    assert "What sees does and covered does not" in output
    assert re.findall(r"│ ([a-z-]+) │", output)[0] == "patch"
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["planted"][0] >= 0.9


@pytest.mark.parametrize("name", case_names())
def test_every_case_study_s_spec_has_two_algorithms(name: str, tmp_path: Path) -> None:
    study = open_case(name, tmp_path / "case")
    assert len(study.spec.algorithms) == 2
    recipes = list(study.spec.algorithms.values())
    assert min(recipe.checkpoints for recipe in recipes) >= ENOUGH
    assert recipes[0] != recipes[1]
    assert case_names() == sorted(CASES)
    assert (ROOT / "docs" / f"case-{name}.md").exists()


def test_a_case_study_takes_no_other_study_s_folder(
    copied: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["case-study", "shortcut", str(copied.root)]) == 2
    assert "holds a different study, 'Small Fashion-MNIST'" in capsys.readouterr().err
    with pytest.raises(SpecError, match="no case study 'longcut'"):
        open_case("longcut", copied.root)
