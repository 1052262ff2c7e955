"""Label suspicion: planted wrong labels are found, right ones are flagged at the stated rate."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from engine import Study
from engine.applications.curation.label_suspicion import label_suspicion, read_unseen
from engine.applications.curation.suspicion import (
    LEVEL,
    agreement,
    disagreement,
    excess,
    flag,
    looks_wrong,
    neighbour_counts,
    suggest,
    unseen_margins,
)
from engine.applications.curation.table import curation_table
from engine.store import layout
from engine.store.errors import MissingCapability
from engine.study.decisions import decide, read_decisions
from tests.builders.copies import copy_of
from tests.builders.planted_faults import WRONG_IN_TRAINING

RUNS, TRAIN, TEST = 16, 400, 120


def bank(generator: np.random.Generator, wrong: int = 0) -> tuple[np.ndarray, ...]:
    """Masks and margins of runs: an example's own difficulty, the run's noise, and a bonus for
    having seen it. The first labels are wrong."""
    masks = np.stack([generator.permutation(TRAIN) < TRAIN // 2 for _ in range(RUNS)])
    own = {n: generator.normal(2, 3, n) for n in (TRAIN, TEST)}
    own[TRAIN][:wrong] -= 9
    train, test = (own[n] + generator.normal(0, 1.5, (RUNS, n)) for n in (TRAIN, TEST))
    return masks, train + 5 * masks, test


def test_right_labels_are_flagged_at_the_stated_rate() -> None:
    shares, beyond = [], []
    for seed in range(100):
        found = unseen_margins(*bank(np.random.default_rng(seed)))
        flagged, level = flag(looks_wrong(found.margin, found.test), TEST)
        shares.append(flagged.mean())
        beyond.append(excess(flagged, level, TEST).beyond_chance)
    error = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - level) < 4 * error
    assert level == pytest.approx(LEVEL, abs=1 / TEST)
    assert np.mean(beyond) < 0.1


def test_wrong_labels_are_first_and_more_than_chance_explains() -> None:
    found = unseen_margins(*bank(np.random.default_rng(1), wrong=30))
    first = np.argsort(found.margin)[:30]
    assert (first < 30).mean() > 0.7
    flagged, level = flag(looks_wrong(found.margin, found.test), TEST)
    counted = excess(flagged, level, TEST)
    assert counted.beyond_chance
    assert counted.flagged > 2 * counted.expected


def test_unseen_margins_are_means_of_the_runs_without_the_example() -> None:
    masks, train, test = bank(np.random.default_rng(2))
    masks[:, 7] = True
    found = unseen_margins(masks, train, test)
    for row in (0, 3):
        outside = train[~masks[:, row], row]
        assert found.margin[row] == pytest.approx(outside.mean())
        inside = train[masks[:, row], row].mean()
        assert found.self_influence[row] == pytest.approx(inside - outside.mean())
        assert found.test[row] == pytest.approx(test[~masks[:, row], row].mean())
    assert (found.runs[7], np.isnan(found.margin[7])) == (0, True)
    assert looks_wrong(found.margin, found.test)[7] == 1


def test_few_test_examples_flag_what_they_can_tell() -> None:
    flagged, level = flag(looks_wrong(np.array([-9.0, 1.0]), np.arange(4.0)), 4)
    assert (flagged.tolist(), level) == ([True, False], 0.2)


def test_neighbors_vote() -> None:
    labels = np.array([0, 0, 1, 1])
    near = np.array([[1, 2, 3], [0, 2, -1], [3, 0, 1], [2, -1, -1]])
    counts = neighbour_counts(labels, near, 3)
    assert counts.tolist() == [[1, 2, 0], [1, 1, 0], [2, 1, 0], [0, 1, 0]]
    alike = agreement(labels, labels, near)
    assert alike.tolist() == [[1, 2], [1, 1], [1, 2], [1, 0]]
    np.testing.assert_allclose(disagreement(alike), [2 / 3, 1 / 2, 2 / 3, 0])
    even = np.zeros((4, 3))
    assert suggest(labels, even, counts).tolist() == [1, 1, 0, 0]
    likely = np.array([[5.0, 0, 1]] * 4)
    assert suggest(labels, likely, None).tolist() == [2, 2, 0, 0]


def test_planted_labels_are_found_by_models_that_did_not_see_them(spoilt: Study) -> None:
    found = spoilt.label_suspicion()
    assert found.evidence.kind == "unseen"
    assert len(set(found.order[:12].tolist()) & set(WRONG_IN_TRAINING)) >= 3
    # As many test labels are wrong, so the training labels do not stand out, and it says so.
    assert not found.excess.beyond_chance
    assert "no more than chance explains" in found.words
    unseen = read_unseen(spoilt, "mlp")
    assert unseen is not None
    own = np.nanmean(unseen.self_influence)
    assert np.nanmean(unseen.self_influence[list(WRONG_IN_TRAINING)]) > own
    # The likeliest other class is the right one; labels went from each class to the next.
    labels = spoilt.table("train")["label"].to_numpy()
    right = {"bag": "trouser", "boot": "bag", "trouser": "boot"}
    rows = list(WRONG_IN_TRAINING)
    agrees = np.array(found.suggested(rows)) == [right[label] for label in labels[rows]]
    assert agrees.sum() >= 3


def test_without_runs_the_evidence_is_weaker_and_says_so(spoilt: Study, tmp_path) -> None:
    study = copy_of(spoilt, tmp_path / "study")
    shutil.rmtree(layout.bank_folder(study.root, "mlp"))
    found = label_suspicion(study)
    assert found.evidence.kind == "seen"
    assert found.evidence.words.startswith("Weak evidence")
    assert "subset_runs" in found.evidence.words
    assert found.self_influence is None
    assert len(set(found.order[:20].tolist()) & set(WRONG_IN_TRAINING)) >= 2


def test_the_table_has_decisions_and_file_names(spoilt: Study, tmp_path) -> None:
    study = copy_of(spoilt, tmp_path / "study")
    decide(study, 20, "relabel", "boot" if study.table("train")["label"][20] != "boot" else "bag")
    decide(study, 5, "remove")
    found = study.label_suspicion()
    table = curation_table(study, [20, 5, 6], found, read_decisions(study)).to_pylist()
    assert [one["decision"] for one in table] == ["relabel", "remove", None]
    assert table[0]["new_label"] in ("boot", "bag")
    assert table[0]["label_suspicion"] == found.suspicion[20]
    assert [one["id"] for one in table] == study.table("train")["id"].iloc[[20, 5, 6]].tolist()


def test_examples_without_a_class_have_no_suspicion(toy_study: Study) -> None:
    with pytest.raises(MissingCapability, match="Label suspicion cannot be computed"):
        toy_study.label_suspicion()


def test_texts_have_suspicion(text_study: Study) -> None:
    found = text_study.label_suspicion()
    assert sorted(found.order.tolist()) == list(range(text_study.dataset.n_train))
    assert ((found.suspicion >= 0) & (found.suspicion < 1)).all()
