"""Verification: retraining that a plain training loop confirms, and how it is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine import DataloupeError, SpecError, StoreError, Study, store
from engine.applications.verification import agreement, predicted_and_actual, verify
from engine.applications.verification.control import control_of
from engine.applications.verification.job import run_job
from engine.applications.verification.outcomes import mean_change
from engine.attribution.evaluation.quality import share
from engine.build.retraining import NOTHING, removal_of, retrain, retrained
from engine.models import build_model
from engine.store import layout
from engine.study.counterfactuals import predict_removal
from engine.study.examples import read_stacked_arrays
from engine.study.lock import locked
from engine.study.models import checkpoint_seed
from engine.study.rankings import find_influences
from engine.tasks import load_task
from engine.training.outputs import evaluate
from engine.training.trainer import train
from tests.build.test_build import change
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of


@pytest.fixture
def copy(small_study: Study, tmp_path: Path) -> Study:
    """A built study that a test may change."""
    return copy_of(small_study, tmp_path / "copy")


@pytest.fixture(scope="module")
def shared_verified(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with one verification: the strongest supporters of test example 7 removed."""
    study = give_units(copy_of(small_study, tmp_path_factory.mktemp("verified") / "study"))
    removed = find_influences(study, 7, 15)[0]
    verify(study, removed.tolist(), tests=[7, 3], seeds=3, control=True, workers=0)
    return study


@pytest.fixture
def verified(shared_verified: Study, tmp_path: Path) -> Study:
    """A copy of it."""
    return copy_of(shared_verified, tmp_path / "verified")


# --- retraining -----------------------------------------------------------------------------------


def test_a_model_is_the_recipe_without_the_removed_rows(copy: Study) -> None:
    removed = removal_of(copy, ["train-5", 17, "17", "5", 5, "train-0"])
    assert removed == (0, 5, 17)
    retrain(copy, "mlp", [removed], 2, workers=0)
    spec, encoding = copy.spec.algorithms["mlp"], copy.dataset.encoding
    task = load_task("image-classification")
    arrays = {split: read_stacked_arrays(copy, split) for split in ("train", "test")}
    model = build_model("mlp", spec.architecture_options, encoding, 10, checkpoint_seed(copy, 1))
    subset = np.setdiff1d(np.arange(300), removed)
    model = train(
        task, model, arrays["train"], encoding, spec, checkpoint_seed(copy, 1), "cpu", subset
    )
    wanted = evaluate(task, model, arrays["test"], encoding, 512, "cpu")
    found = retrained(copy, "mlp", removed, 1)
    np.testing.assert_array_equal(found.output, wanted["output"])
    np.testing.assert_array_equal(found.answers, wanted["logits"].argmax(1))


def test_models_with_all_data_are_the_checkpoints_as_far_as_there_are_any(copy: Study) -> None:
    steps: list[tuple[int, int]] = []
    retrain(copy, "mlp", [NOTHING], 3, workers=0, on_done=lambda _, *step: steps.append(step))
    assert steps == [(2, 3), (3, 3)]
    outputs = store.read_tensors(layout.outputs_file(copy.root, "mlp", 1, "test"))
    np.testing.assert_array_equal(retrained(copy, "mlp", NOTHING, 1).output, outputs["output"])
    third = retrained(copy, "mlp", NOTHING, 2)
    more = change(copy.root, "checkpoints = 2", "checkpoints = 3")
    more.build(workers=0, rebuild="predictions")
    np.testing.assert_array_equal(third.output, retrained(more, "mlp", NOTHING, 2).output)


def test_what_is_trained_is_trained_once_whoever_trains_it(copy: Study) -> None:
    retrain(copy, "mlp", [(1, 2)], 2, workers=2)
    files = {path: path.stat().st_mtime_ns for path in copy.root.glob("**/retrained/*/*")}
    assert len(files) == 2
    before = {path: path.read_bytes() for path in files}
    retrain(copy, "mlp", [(1, 2), (1, 2)], 2, workers=0)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    for path in files:
        path.unlink()
    retrain(copy, "mlp", [(1, 2)], 2, workers=0)
    assert {path: path.read_bytes() for path in files} == before


def test_models_of_another_recipe_are_never_mixed(copy: Study) -> None:
    retrain(copy, "mlp", [(1,)], 1, workers=0)
    other = change(copy.root, "epochs = 4", "epochs = 5")
    with pytest.raises(StoreError, match="is missing"):
        retrained(other, "mlp", (1,), 0)


# --- what is shown --------------------------------------------------------------------------------


def test_the_outcome_is_that_of_the_models(verified: Study) -> None:
    (found,) = verified.verifications()
    removed = tuple(found.removed)
    outcome = found.of(7)
    assert outcome is not None
    for seed in range(3):
        model = retrained(verified, "mlp", removed, seed)
        assert outcome.without[seed] == model.output[7]
        assert outcome.answers_without[seed] == verified.dataset.classes[model.answers[7]]
    changes = np.subtract(outcome.without, outcome.with_all)
    interval = stats.t.interval(0.95, 2, changes.mean(), changes.std(ddof=1) / np.sqrt(3))
    assert (outcome.low, outcome.high) == pytest.approx(interval, rel=1e-3)
    flips = [name != outcome.before for name in outcome.answers_without]
    assert outcome.flips.mean == np.mean(flips)
    assert outcome.predicted == predict_removal(verified, 7, find_influences(verified, 7, 15)[1])
    assert found.of(4) is None


def test_removing_the_strongest_supporters_lowers_the_margin_more_than_a_control(
    verified: Study,
) -> None:
    (found,) = verified.verifications()
    assert found.outcomes[0].change < found.control[0].change - 0.1
    labels = verified.table("train")["label"]
    assert sorted(labels[found.removed]) == sorted(labels[found.control_removed])
    assert not set(found.removed) & set(found.control_removed)
    assert found.control_removed == list(control_of(verified, tuple(found.removed)))


def test_the_same_question_is_kept_once_and_another_beside_it(verified: Study) -> None:
    (first,) = verified.verifications()
    again = verify(verified, first.removed_ids, tests=["test-7", 3], seeds=3, control=True)
    assert again.id == first.id
    fewer = verified.verify(first.removed, tests=[7], seeds=2)
    assert {one.id for one in verified.verifications()} == {first.id, fewer.id}


def test_predicted_and_actual_changes_are_collected(verified: Study) -> None:
    (one,) = verified.verifications()
    found = predicted_and_actual([one])
    assert found["test"].tolist() == [7, 3]
    assert found["removed"].tolist() == [15, 15]
    np.testing.assert_array_equal(found["actual"], [o.change for o in one.outcomes])
    assert len(predicted_and_actual([one], "trak")["test"]) == 2 * (one.method == "trak")
    assert predicted_and_actual([])["predicted"].shape == (0,)


def test_the_queue_can_run_it(copy: Study) -> None:
    steps: list[tuple[int, int, str]] = []
    parameters = {"removed": ["train-3"], "tests": [1], "seeds": 2, "workers": 0}
    answer = run_job(copy, parameters, lambda *step: steps.append(step))
    assert answer["verification"] == copy.verifications()[0].id
    assert [step[:2] for step in steps] == [(2, 4), (3, 4), (4, 4)]


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "options", "words"),
    [
        ([], {}, "removal set is empty"),
        (["train-999"], {}, "no training example 'train-999'"),
        ([300], {}, "rows are 0 to 299"),
        ([-1], {}, "rows are 0 to 299"),
        (range(300), {}, "all 300 training examples"),
        ([1], {"tests": ["test-99"]}, "no test example 'test-99'"),
        ([1], {"seeds": 0}, "seeds must be from 1"),
        ([1], {"algorithm": "cnn"}, "no algorithm 'cnn'"),
        ([1], {"method": "magic"}, "no scores by method 'magic'"),
    ],
)
def test_questions_that_cannot_be_are_answered_in_a_line(
    small_study: Study, removed: list[int], options: dict[str, object], words: str
) -> None:
    with pytest.raises(DataloupeError, match=words) as caught:
        verify(small_study, removed, **({"tests": [0]} | options))
    assert "\n" not in str(caught.value)


def test_a_whole_class_is_not_removed(small_study: Study) -> None:
    labels = small_study.table("train")["label"].to_numpy()
    bags = np.flatnonzero(labels == "Bag")
    with pytest.raises(DataloupeError, match="every training example of class 'Bag'"):
        verify(small_study, bags.tolist(), tests=[0])
    assert removal_of(small_study, bags[1:]) == tuple(bags[1:])
    with pytest.raises(DataloupeError, match="verify without a control"):
        control_of(small_study, tuple(bags[1:]))


def test_checkpoints_without_a_recipe_say_what_to_add(small_study: Study, copy: Study) -> None:
    shutil.copy(layout.checkpoint_file(small_study.root, "mlp", 0), copy.root / "0.safetensors")
    recipe = "epochs = 4\nlearning_rate = 0.05\nbatch_size = 64\ncheckpoints = 2"
    study = change(copy.root, recipe, 'weights = ["0.safetensors"]')
    with pytest.raises(SpecError, match=r"not verified by retraining\. Add the recipe .*epochs"):
        verify(study, [1], tests=[0])
    study = change(copy.root, "weights =", "epochs = 1\nlearning_rate = 0.05\nweights =")
    found = verify(study, [1], tests=[0], seeds=1, workers=0)
    assert found.outcomes[0].low is None
    assert len(list(copy.root.glob("**/retrained/*/0.safetensors"))) == 2


def test_a_study_that_is_being_built_is_left_alone(copy: Study) -> None:
    with locked(copy), pytest.raises(StoreError, match="by another process"):
        verify(Study.open(copy.root), [1], tests=[0], seeds=1, workers=0)


# --- statistics -----------------------------------------------------------------------------------


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_wilson_intervals(case: tuple[int, int]) -> None:
    found, of = case
    wanted = stats.binomtest(found, of).proportion_ci(0.95, "wilson")
    measured = share(found, of)
    assert (measured.low, measured.high) == pytest.approx(tuple(wanted), abs=1e-4)
    assert measured.low <= measured.mean <= measured.high


@pytest.mark.parametrize("n", [2, 5, 21, 22, 60])
def test_mean_changes_have_t_intervals(n: int) -> None:
    changes = np.random.default_rng(n).normal(size=n)
    wanted = stats.t.interval(0.95, n - 1, changes.mean(), stats.sem(changes))
    assert mean_change(changes)[1:] == pytest.approx(wanted, rel=5e-3)


def test_agreement_is_slope_and_correlation() -> None:
    predicted = np.random.default_rng(0).normal(size=50)
    assert agreement(predicted, 0.5 * predicted) == pytest.approx((0.5, 1.0))
    assert agreement(predicted[:2], predicted[:2]) is None
    assert agreement(predicted, np.zeros(50)) is None
