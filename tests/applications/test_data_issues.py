"""Flags, by planted truth: wrong labels, copied pictures, lone supporters."""

from __future__ import annotations

import numpy as np
import pytest

from engine import Study
from engine.applications.brittle import data_issues
from engine.applications.brittle.data_issues import (
    RULES,
    doubtful_labels,
    find_data_issues,
    same_inputs,
    training_copies,
)
from engine.store.layout import TRAK
from engine.study.examples import read_stacked_arrays
from engine.study.names import resolve_method
from tests.builders.planted_faults import BRIGHTENED, COPIED, MISLABELLED, WRONG_IN_TRAINING


def test_planted_faults_are_flagged(spoilt: Study) -> None:
    found = {
        name: np.flatnonzero(holds) for name, holds in find_data_issues(spoilt, "mlp", TRAK).items()
    }
    assert list(found) == list(RULES)
    assert found["leak"].tolist() == list(COPIED)
    assert set(BRIGHTENED) <= set(found["near-copy"])
    assert not set(COPIED) & set(found["near-copy"])
    assert len(set(MISLABELLED) & set(found["label"])) >= 3
    assert len(found["label"]) <= 6
    assert len(found["near-copy"]) <= 12


def test_a_copy_is_found_by_its_row(spoilt: Study) -> None:
    found = same_inputs(spoilt)
    for row in COPIED:
        assert found[row] == [row]
    assert not found[BRIGHTENED[0]]


def test_copies_within_the_training_data_are_found(spoilt: Study) -> None:
    exact, nearly = training_copies(spoilt, "mlp")
    inputs = [row.tobytes() for row in read_stacked_arrays(spoilt, "train")["input"][:]]
    assert exact.tolist() == [inputs.count(one) > 1 for one in inputs]
    assert not (exact & nearly).any()
    assert len(nearly) == spoilt.dataset.n_train


def test_inputs_of_a_large_training_set_are_not_compared(
    spoilt: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = resolve_method(spoilt, "mlp")
    assert find_data_issues(spoilt, "mlp", method)["leak"].any()
    monkeypatch.setattr(data_issues, "MOST_COMPARED", spoilt.dataset.n_train - 1)
    monkeypatch.setattr(data_issues, "_digests", None)  # nothing is read
    found = find_data_issues(spoilt, "mlp", method)
    assert not (found["leak"] | found["near-copy"]).any()


def test_wrong_labels_in_the_training_data_are_found(spoilt: Study) -> None:
    from engine.applications.brittle.data_issues import nearest

    labels = spoilt.table("train")["label"].to_numpy()
    doubtful = np.flatnonzero(doubtful_labels(labels, nearest(spoilt, "mlp", "train")))
    assert len(set(WRONG_IN_TRAINING) & set(doubtful)) >= 3
    assert len(doubtful) <= 10


def test_doubt_needs_eight_of_ten_of_one_other_label() -> None:
    labels = np.array(["a"] * 11 + ["b"] * 10)
    others = np.arange(11, 21)
    near = np.tile(np.arange(10), (21, 1))
    near[0] = others  # ten of b around an a
    near[1] = [*others[:8], 2, 3]
    near[2] = [*others[:7], 3, 4, 5]
    near[3] = [*others[:8], -1, -1]
    near[11:] = others
    assert np.flatnonzero(doubtful_labels(labels, near)).tolist() == [0, 1, 3]


def test_texts_have_leaks_and_no_pictures(text_study: Study) -> None:
    found = find_data_issues(text_study, "words", resolve_method(text_study, "words"))
    train = set(text_study.table("train")["text"])
    wanted = text_study.table("test")["text"].isin(train).to_numpy()
    np.testing.assert_array_equal(found["leak"], wanted)
    assert not found["near-copy"].any()
