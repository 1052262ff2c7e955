"""What a built study answers, against its own score matrix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine import DataloupeError, SpecError, StoreError, Study, store
from engine.store import layout
from engine.store.sharded_rows import ShardedRows
from engine.study.examples import read_stacked_arrays
from engine.study.models import read_probabilities
from engine.study.rankings import find_influences, read_top, read_top_of_training, read_totals
from engine.study.thumbnails import read_thumbnail


def test_explain_gives_the_largest_scores_of_both_signs(small_study: Study) -> None:
    scores = small_study.scores(range(60))
    assert scores.shape == (60, 300)
    for test in range(60):
        explanation = small_study.explain(test, k=7)
        order = np.argsort(-scores[test], kind="stable")
        assert [influence.row for influence in explanation.supporting] == order[:7].tolist()
        assert [influence.row for influence in explanation.opposing] == order[::-1][:7].tolist()
        for influence in explanation.supporting + explanation.opposing:
            assert influence.score == pytest.approx(float(scores[test, influence.row]))


def test_beyond_the_stored_k_the_index_answers(small_study: Study) -> None:
    assert read_top(small_study)["support_index"].shape[1] == 20
    scores = small_study.scores(range(10))
    hits = 0
    for test in range(10):
        rows, found, *_ = find_influences(small_study, test, 60)
        assert (np.diff(found) <= 0).all()
        np.testing.assert_allclose(found, scores[test, rows], rtol=1e-5)
        hits += len(set(rows) & set(np.argsort(-scores[test])[:60]))
    assert hits >= 0.95 * 600


def test_all_training_examples_can_be_asked_for(small_study: Study) -> None:
    support, _, oppose, _ = find_influences(small_study, 0, 10_000)
    assert sorted([*support, *oppose]) == list(range(300))


def test_every_training_example_knows_whom_it_helps_and_hurts(small_study: Study) -> None:
    scores = small_study.scores(range(60))
    for train in (0, 17, 299):
        top = read_top_of_training(small_study, train)
        assert top["support_index"][0] == scores[:, train].argmax()
        assert top["oppose_index"][0] == scores[:, train].argmin()


def test_totals_are_sums_over_the_whole_score_matrix(small_study: Study) -> None:
    scores = small_study.scores(range(60)).astype(np.float64)
    totals = read_totals(small_study)
    for sign, part in (("support", np.maximum(scores, 0)), ("oppose", np.minimum(scores, 0))):
        np.testing.assert_allclose(totals[f"test_{sign}"], part.sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(totals[f"train_{sign}"], part.sum(axis=0), rtol=1e-5)


def test_an_explanation_names_its_example_and_is_json(small_study: Study) -> None:
    by_row, by_id = small_study.explain(17, k=3), small_study.explain("test-17", k=3)
    assert by_row == by_id
    table, predictions = small_study.table("test"), small_study.predictions("test")
    assert by_row.id == table["id"][17]
    assert by_row.label == table["label"][17]
    assert by_row.correct == (predictions["predicted"][17] == table["label"][17])
    assert json.loads(json.dumps(by_row.to_dict()))["badge"]["checkpoints"] == 2


def test_the_thumbnail_is_the_picture(small_study: Study) -> None:
    pixels = read_stacked_arrays(small_study, "test")["input"][5, 0]
    np.testing.assert_array_equal(
        np.asarray(read_thumbnail(small_study, "test", 5).convert("L")), pixels
    )


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_sharded_rows_are_one_array(lengths: list[int], data: st.DataObject) -> None:
    n = sum(lengths)
    whole = np.arange(2 * n).reshape(n, 2)
    rows = ShardedRows(np.split(whole, np.cumsum(lengths)[:-1]))
    assert len(rows) == n
    numbers = np.array(data.draw(st.lists(st.integers(0, n - 1))), dtype=np.int64)
    np.testing.assert_array_equal(rows[numbers], whole[numbers])
    start, stop = data.draw(st.integers(0, n)), data.draw(st.integers(0, n + 3))
    np.testing.assert_array_equal(rows[start:stop], whole[start:stop])
    row = data.draw(st.integers(0, n - 1))
    np.testing.assert_array_equal(rows[row], whole[row])


def test_a_prediction_follows_from_the_mean_logits(small_study: Study) -> None:
    files = [layout.outputs_file(small_study.root, "mlp", m, "test") for m in range(2)]
    logits = np.mean([store.read_tensors(file)["logits"] for file in files], axis=0, dtype=float)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predictions = small_study.predictions("test")
    np.testing.assert_allclose(predictions["confidence"], expected.max(1), rtol=1e-5)
    for row in (0, 33):
        found = read_probabilities(small_study, "test", row)
        np.testing.assert_allclose(found, expected[row], rtol=1e-5)
        assert small_study.dataset.classes[found.argmax()] == predictions["predicted"][row]
    label = small_study.table("test")["label"].map(small_study.dataset.classes.index).to_numpy()
    p = expected[np.arange(60), label]
    np.testing.assert_allclose(predictions["output"], np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    # One prediction, one story.
    correct = predictions["correct"].to_numpy()
    np.testing.assert_array_equal(correct, expected.argmax(1) == label)
    assert correct[predictions["output"] > 0].all()
    np.testing.assert_allclose(predictions["confidence"][correct], p[correct], rtol=1e-5)
    assert predictions["correct"].mean() > 0.5  # the small model has learned something


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda study: study.explain(60), "rows are 0 to 59"),
        (lambda study: study.explain(-1), "rows are 0 to 59"),
        (lambda study: study.explain("nobody"), "no test example 'nobody'"),
        (lambda study: study.explain(0, k=0), "k must be at least 1"),
        (lambda study: study.explain(0, algorithm="gpt"), "no algorithm 'gpt'; it has mlp"),
        (lambda study: study.scores([3, 60]), "rows are 0 to 59"),
    ],
)
def test_wrong_questions_get_a_clear_line(small_study: Study, call, words: str) -> None:
    with pytest.raises(DataloupeError, match=words):
        call(small_study)


def test_opening_what_is_no_study(tmp_path: Path, study_folder: Path) -> None:
    with pytest.raises(SpecError, match="not a folder"):
        Study.open(tmp_path / "nothing")
    with pytest.raises(SpecError, match=r"study\.toml does not exist"):
        Study.open(tmp_path)
    with pytest.raises(SpecError, match="already exists"):
        Study.create(study_folder, "")
    with pytest.raises(StoreError, match="no scores yet"):
        Study.open(study_folder).explain(0)


def test_a_wrong_spec_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        Study.create(tmp_path / "wrong", 'name = ""')
    assert not (tmp_path / "wrong" / "study.toml").exists()


def test_all_of_the_public_names_are_there() -> None:
    for name in engine.__all__:
        assert getattr(engine, name) is not None
