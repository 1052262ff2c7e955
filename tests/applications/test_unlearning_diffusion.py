"""Forget a group of pictures: unlearning of diffusion, audited by what is made from fixed seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine import Study, store
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.before_after import before_after_files, read_before_after
from engine.applications.unlearning.checks import methods_of
from engine.applications.unlearning.made import read_made_by_audit
from engine.applications.unlearning.method_verdict import method_verdict
from engine.applications.unlearning.output_changes import predicted_changes
from engine.applications.unlearning.settings import Hyper
from engine.build.retraining import FIRST_ORACLE, model_without
from engine.build.tasks import task_at, task_of
from engine.cli.main import main
from engine.study.capabilities import UNLEARNING, UNLEARNING_OUTPUTS
from engine.study.examples import read_stacked_arrays
from engine.study.score_matrices import stored_solver
from engine.tasks.outcomes import MATCHED, OUTCOMES
from engine.training.outputs import evaluate
from tests.builders import diffusion
from tests.builders.copies import copy_of

N = 4
HYPER = {"matching": Hyper(0.03, 0.5, batch=16), "both": Hyper(0.01, weight=0.3)}


def of_class(study: Study, name: str) -> list[int]:
    return np.flatnonzero(study.table("train")["class"] == name).tolist()


@pytest.fixture(scope="module")
def with_audit(made_study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Audit]:
    """All pictures of one class are forgotten."""
    study = copy_of(made_study, tmp_path_factory.mktemp("audited") / "study")
    found = audit(
        study,
        of_class(study, "left"),
        methods=["matching", "both"],
        models=N,
        budget=0.5,
        hyper=HYPER,
        workers=0,
    )
    return study, found


def test_its_models_can_unlearn_by_methods_without_classes(made_study: Study) -> None:
    assert methods_of(made_study) == ["nothing", "finetune", "ascent", "both", "matching", "oracle"]


def test_a_study_knows_without_torch_whether_its_models_can_unlearn() -> None:
    assert set(UNLEARNING) == {name for name, one in OUTCOMES.items() if one.matched is not None}
    assert set(UNLEARNING_OUTPUTS) == set(MATCHED)


@pytest.mark.parametrize(
    ("curvature", "size", "settings"),
    [
        ("plain", "width = 8, levels = 2", 'solver = "dual-exact"'),
        ("sampled", "width = 4, levels = 1", "proj_dim = 262144\nwidth = 262144"),
    ],
)
def test_predicted_changes_are_sums_of_scores(
    curvature: str, size: str, settings: str, tmp_path: Path
) -> None:
    """One checkpoint, no bank, no threshold and all of the gradients: the errors rise by what the
    scores say."""
    study = diffusion.without_bank(diffusion.squares_study(tmp_path))
    path = study.root / "study.toml"
    text = path.read_text().replace("checkpoints = 2", "checkpoints = 1")
    text = text.replace("width = 8, levels = 2", size)
    text = text.replace("proj_dim = 512", f"soft_threshold = 0.0\ntempering = 1.0\n{settings}")
    path.write_text(text.replace("[search]", "[live]\ncheckpoints = 0\n\n[search]"))
    study = Study.open(study.root)
    study.build("cpu", workers=0)
    assert stored_solver(study, "unet").curvature == curvature
    forget = (3, 17, 40)
    found = predicted_changes(study, forget, forget, "unet")
    assert found.test.shape == (study.dataset.n_test, 4)
    assert found.forget.shape == (3, 4)
    scores = study.scores(np.arange(study.dataset.n_test), "unet", "trak")[:, list(forget)]
    np.testing.assert_allclose(
        found.test.mean(axis=1), scores.sum(axis=1), rtol=1e-3, atol=1e-3 * np.abs(scores).max()
    )


def test_all_models_are_judged_on_the_same_noise(with_audit: tuple[Study, Audit]) -> None:
    study, audited = with_audit
    rows = np.array(audited.forget)
    some = {name: array[rows] for name, array in read_stacked_arrays(study, "train").items()}
    found = read_before_after(study, audited, "both")
    model = model_without(study, "unet", tuple(audited.forget), FIRST_ORACLE + 1, "cpu")
    seen = evaluate(task_at(study, "unet", 0), model, some, study.dataset.encoding, 512, "cpu")
    np.testing.assert_allclose(found.oracle.margins[1], -seen["errors"].mean(1), rtol=1e-4)
    assert found.oracle.right is None


def test_a_class_that_is_forgotten_is_denoised_worse(with_audit: tuple[Study, Audit]) -> None:
    study, audited = with_audit
    found = read_before_after(study, audited, "both")
    before, unlearned, oracle = (
        one.margins.mean() for one in (found.before, found.unlearned, found.oracle)
    )
    assert oracle < before
    assert unlearned < before
    one = audited.of("matching")
    assert one.forget.accuracy is one.test.oracle_accuracy is None
    assert audited.correlation is not None
    assert "accuracy" not in method_verdict(audited, "both").summary
    assert np.isfinite([one.forget.klom.mean.mean, one.membership, one.attack.mean]).all()


def test_models_make_the_same_seeds_before_after_and_retrained(
    with_audit: tuple[Study, Audit],
) -> None:
    study, audited = with_audit
    found = read_made_by_audit(study, audited, "both")
    assert found is not None
    assert found.classes == ("left", "right", "left", "right")
    assert {one.shape for one in found.pictures.values()} == {(N, 4, 1, 8, 8)}
    own = np.array(read_stacked_arrays(study, "test")["input"][:8]).reshape(2, 4, 1, 8, 8)
    np.testing.assert_array_equal(found.pictures["before"][:2], own, "checkpoints are originals")
    model = model_without(study, "unet", tuple(audited.forget), FIRST_ORACLE, "cpu")
    make = task_of(study).generate
    assert make is not None
    again = make(model, study.dataset.encoding, found.seeds, 10, 1, 0.5).pictures
    np.testing.assert_array_equal(found.pictures["retrained"][0], again)
    files = before_after_files(study, audited, "both")
    features = [np.stack([store.read_tensors(f)["made_features"] for f in some]) for some in files]
    units = [one / np.linalg.norm(one, axis=-1, keepdims=True) for one in features]
    seed = 2
    pairs = [(a, b) for a in range(N) for b in range(N)]
    wanted = np.mean([1 - units[0][a, seed] @ units[2][b, seed] for a, b in pairs])
    assert found.distances["before"][seed] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    others = [1 - units[2][a, seed] @ units[2][b, seed] for a, b in pairs if a != b]
    floor = found.distances["retrained"][seed]
    assert floor == pytest.approx(np.mean(others), rel=1e-4, abs=1e-6)
    for shares in found.looks.values():
        assert set(shares) == {"left", "right"}
        assert sum(shares.values()) == pytest.approx(1)


def test_unlearning_gives_the_same_model_again(
    with_audit: tuple[Study, Audit], tmp_path: Path
) -> None:
    """Losses draw noise, and the same seed draws the same."""
    study, audited = copy_of(with_audit[0], tmp_path / "own"), with_audit[1]
    files = before_after_files(study, audited, "both")[1]
    kept = [dict(store.read_tensors(file)) for file in files]
    first = {name: np.array(array) for name, array in kept[0].items()}
    files[0].unlink()
    forget, given = audited.forget, {"budget": 0.5, "hyper": HYPER, "workers": 0}
    audit(study, forget, methods=["matching", "both"], models=N, **given)  # type: ignore[arg-type]
    for name, array in store.read_tensors(files[0]).items():
        np.testing.assert_array_equal(array, first[name])


def test_the_command_line_tells_how_far_pictures_are(
    with_audit: tuple[Study, Audit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audited, study = with_audit[1], copy_of(with_audit[0], tmp_path / "own")
    asked = ["unlearn", str(study.root), "--forget", ",".join(audited.forget_ids)]
    asked += ["--method", "nothing", "--audit", str(N), "--budget", "0.5", "--workers", "0"]
    assert main(asked) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "From 4 seeds, pictures are" in printed
    assert "answered right" not in printed
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["methods"][0]["forget"]["accuracy"] is None
