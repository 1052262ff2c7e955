"""Algorithms that are not trained on some examples: `without` under `[algorithms.NAME]`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import Study, store
from engine.build.retraining import model_without
from engine.build.stages.checkpoints import recipe_fingerprint
from engine.store import layout
from engine.store.errors import SpecError
from engine.store.layout import TRAK
from engine.store.spec import AlgorithmSpec
from engine.study.left_out import left_out, trained_on
from engine.training.weights import as_arrays


def _corrections(study: Study) -> np.ndarray:
    return np.flatnonzero(study.table("train")["kind"] == "correction")


def test_checkpoints_are_models_retrained_without_the_examples(corrected_study: Study) -> None:
    removed = tuple(_corrections(corrected_study).tolist())
    path = layout.checkpoint_file(corrected_study.root, "without", 1)
    kept = store.read_tensors(path)
    expected = as_arrays(model_without(corrected_study, "t5", removed, 1, "cpu"))
    assert expected.keys() == kept.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(kept[name], array)


def test_their_scores_are_zero_and_others_are_not(corrected_study: Study) -> None:
    tests = np.arange(corrected_study.dataset.n_test)
    removed = _corrections(corrected_study)
    scores = corrected_study.scores(tests, "without", TRAK)
    others = np.setdiff1d(np.arange(scores.shape[1]), removed)
    assert not scores[:, removed].any()
    assert (scores[:, others] != 0).any(axis=0).all()
    assert corrected_study.scores(tests, "t5", TRAK)[:, removed].any()


def test_what_is_removed_comes_on_top(corrected_study: Study) -> None:
    removed = _corrections(corrected_study)
    np.testing.assert_array_equal(left_out(corrected_study, "without"), removed)
    some = trained_on(corrected_study, "without", [3, 7])
    everything = np.arange(corrected_study.dataset.n_train)
    np.testing.assert_array_equal(some, np.setdiff1d(everything, [*removed, 3, 7]))
    assert trained_on(corrected_study, "t5") is None


def _changed(study: Study, folder: Path, old: str, new: str) -> Study:
    shutil.copytree(study.root, folder / "study")
    toml = folder / "study" / "study.toml"
    text = toml.read_text()
    assert old in text
    toml.write_text(text.replace(old, new))
    return Study.open(folder / "study")


def test_other_examples_make_another_recipe(corrected_study: Study, tmp_path: Path) -> None:
    other = _changed(
        corrected_study, tmp_path, '{ kind = "correction" }', '{ subject = ["Alba", "Bena"] }'
    )
    assert (
        left_out(other, "without").tolist()
        == np.flatnonzero(other.table("train")["subject"].isin(["Alba", "Bena"])).tolist()
    )
    before, after = (recipe_fingerprint(study, "without") for study in (corrected_study, other))
    assert before != after
    assert recipe_fingerprint(corrected_study, "t5") == recipe_fingerprint(other, "t5")


@pytest.mark.parametrize(
    ("without", "problem"),
    [
        ('{ kin = "correction" }', r"no column 'kin'. Did you mean 'kind'\?"),
        ('{ kind = "corection" }', r"kind = 'corection'. Did you mean 'correction'\?"),
        ('{ kind = ["statement", "question", "correction"] }', "leaves 0 examples"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    corrected_study: Study, tmp_path: Path, without: str, problem: str
) -> None:
    other = _changed(corrected_study, tmp_path, '{ kind = "correction" }', without)
    with pytest.raises(SpecError, match=f"algorithms.without.without.*{problem}"):
        other.build(workers=0)


def test_all_given_columns_have_to_match(corrected_study: Study, tmp_path: Path) -> None:
    other = _changed(
        corrected_study,
        tmp_path,
        '{ kind = "correction" }',
        '{ kind = "statement", subject = "Alba" }',
    )
    assert len(left_out(other, "without")) == 3


def test_one_value_needs_no_list() -> None:
    assert AlgorithmSpec(without={"kind": "a"}) == AlgorithmSpec(without={"kind": ["a"]})
