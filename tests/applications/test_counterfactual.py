"""What removal would do to all test predictions: closed forms, dense matrices, kept sets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from scipy.sparse import csr_array

from engine import DataloupeError, Study, store
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.matrix import sums_of_squares
from engine.attribution.scores.sparse import SparseScores
from engine.cli.main import main
from engine.store import layout
from engine.store.layout import TRAK
from engine.study.counterfactuals import predict_removal
from engine.study.methods import ranked_methods
from engine.study.names import resolve_algorithm
from engine.study.rankings import read_principal_directions
from engine.study.removal_sets import (
    keep_set,
    kept_sets,
    parse_examples,
    parse_table,
    read_examples,
    removal_set,
)
from engine.study.score_matrices import read_score_matrix
from tests.builders.calibrated_study import give_units
from tests.builders.synthetic_study import write_study

N_TRAIN, N_TEST = 90, 30


def both_forms(threshold: bool) -> tuple[FactorScores, np.ndarray]:
    rng = np.random.default_rng(0)
    phi = [rng.standard_normal((N_TRAIN, 7), dtype="f4") for _ in range(2)]
    g = [rng.standard_normal((N_TEST, 7), dtype="f4") for _ in range(2)]
    q = rng.random(N_TRAIN, dtype="f4")
    tau = q * (g[0] @ phi[0].T + g[1] @ phi[1].T) / 2
    level = rng.random(N_TEST, dtype="f4") if threshold else None
    features = [[part[:50], part[50:]] for part in phi]
    factors = FactorScores(features, g, q, level)
    return factors, tau if level is None else shrunk(tau, level)


def shrunk(tau: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.sign(tau) * np.maximum(np.abs(tau) - level[:, None], 0)


@pytest.mark.parametrize("threshold", [False, True])
@given(rows=some.sets(some.integers(0, N_TRAIN - 1)))
def test_sums_are_those_of_the_dense_matrix(threshold: bool, rows: set[int]) -> None:
    factors, tau = both_forms(threshold)
    chosen = np.array(sorted(rows), dtype=np.int64)
    dense = DenseScores([tau[:11], tau[11:]])
    sparse = SparseScores([csr_array(tau[:11]), csr_array(tau[11:])])
    truth = tau[:, chosen].astype(np.float64).sum(axis=1)
    for scores in (factors, dense, sparse):
        np.testing.assert_allclose(scores.sums(chosen), truth, atol=1e-4)
        found = sums_of_squares(scores, chosen)
        np.testing.assert_allclose(found, np.square(tau[:, chosen]).sum(axis=1), atol=1e-4)


def counterfactual(before: list[float], change: list[float], calibrated: bool) -> Counterfactual:
    return Counterfactual(
        algorithm="a",
        method="m",
        removed=np.arange(3),
        calibrated=calibrated,
        change=np.array(change),
        low=None,
        high=None,
        before=np.array(before) - 0.25,
        by_group={},
        emptied=[],
        output="margin",
        logit_gap=np.array(before),
    )


def test_who_flips() -> None:
    found = counterfactual([2, 0.5, -1, -3, 1], [-1, -1, 2, 2, -9], calibrated=True)
    assert found.lost.tolist() == [4, 1]
    assert found.won.tolist() == [2]
    assert found.flips.tolist() == [1, 2, 4]  # by the logit gap: margins lie below it
    assert found.strongest(-1, 2).tolist() == [4, 0]
    assert found.strongest(1, 9).tolist() == [2, 3]
    raw = counterfactual([2, 0.5], [-9, -9], calibrated=False)
    assert not len(raw.lost)
    assert raw.after is None


# --- a study -----------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrated", [False, True])
def test_of_a_study_is_what_each_removal_says(own_study: Study, calibrated: bool) -> None:
    study = give_units(own_study) if calibrated else own_study
    rows, algorithm = [3, 5, 250, 3], resolve_algorithm(study)
    if calibrated:
        assert study.counterfactual(rows, method=TRAK).calibrated
    for method in ranked_methods(study, algorithm):
        found = study.counterfactual(rows, method=method)
        assert found.removed.tolist() == [3, 5, 250]
        scores = read_score_matrix(study, algorithm, method).columns(found.removed)
        for test in (0, 17, 59):
            one = predict_removal(study, test, scores[test], method=method)
            if one is None:
                assert not found.calibrated
                assert found.low is None
                assert found.change[test] == pytest.approx(-scores[test].sum(), rel=1e-4)
            else:
                assert found.low is not None
                assert found.change[test] == pytest.approx(one.mean, rel=1e-4, abs=1e-6)
                assert found.low[test] == pytest.approx(one.low, rel=1e-4, abs=1e-6)
        labels = study.table("test")["label"].to_numpy()
        for label, mean in found.by_group.items():
            assert mean.mean == pytest.approx(found.change[labels == label].mean())
            assert mean.low <= mean.mean <= mean.high
        json.dumps(found.to_dict(), allow_nan=False)


def test_ids_and_rows_are_one(small_study: Study) -> None:
    ids = small_study.table("train")["id"].astype(str)
    by_id = small_study.counterfactual([ids[7], ids[2]])
    assert by_id.removed.tolist() == [2, 7]


def test_a_whole_class_is_told_of(small_study: Study) -> None:
    labels = small_study.table("train")["label"].to_numpy()
    found = small_study.counterfactual(np.flatnonzero(labels == labels[0]).tolist())
    assert found.emptied == [labels[0]]


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ([], "empty"),
        (["nobody", "7"], "no training example 'nobody'"),
        ([300], "no training example 300"),
        ([-1], "no training example -1"),
        (list(range(300)), "leaves nothing"),
    ],
)
def test_what_cannot_be_removed(small_study: Study, removed: list[int | str], words: str) -> None:
    with pytest.raises(DataloupeError, match=words):
        small_study.counterfactual(removed)


# --- kept sets ---------------------------------------------------------------------------------


@pytest.fixture
def copy(small_study: Study, tmp_path: Path) -> Study:
    """A study whose folder can be written; what was computed is the small study's."""
    for part in small_study.root.iterdir():
        (tmp_path / part.name).symlink_to(part)
    return Study.open(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # sets do not meet
@given(rows=some.sets(some.integers(0, 299), min_size=1, max_size=40))
def test_a_kept_set_is_found_again(copy: Study, rows: set[int]) -> None:
    kept = keep_set(copy, rows, "  chosen\n by   hand ")
    found = removal_set(copy, kept.key)
    assert found.rows.tolist() == sorted(rows)
    assert (found.words, found.key) == ("chosen by hand", kept.key)
    assert keep_set(copy, sorted(rows), "chosen by hand").key == kept.key


@pytest.mark.parametrize("key", ["", "../../study", "0" * 16, "G" * 16, "0" * 17])
def test_a_key_from_an_address_is_not_trusted(small_study: Study, key: str) -> None:
    with pytest.raises(DataloupeError, match="has no removal set"):
        removal_set(small_study, key)


def test_a_set_of_other_data_is_refused(copy: Study) -> None:
    kept = keep_set(copy, [1, 2], "two")
    path = layout.removal_set_file(copy.root, kept.key)
    content = json.loads(path.read_text())
    body = {"words": "two", "runs": content["runs"], "data": "other"}
    store.write_json(path, body, "other")
    with pytest.raises(DataloupeError, match="different data"):
        removal_set(copy, kept.key)
    store.write_json(path, {"words": "two"}, "other")
    with pytest.raises(DataloupeError, match="not a complete removal set"):
        removal_set(copy, kept.key)


def test_ids_are_read_from_text(small_study: Study) -> None:
    ids = small_study.table("train")["id"].astype(str)
    named = parse_examples(small_study, f"{ids[4]}, {ids[9]};299\n nobody 300\nnobody 4")
    assert named.rows.tolist() == [4, 9, 299]
    assert named.unknown == ["nobody", "300"]
    assert named.repeated == 1


def test_ids_are_read_from_files(small_study: Study, tmp_path: Path) -> None:
    ids = small_study.table("train")["id"].astype(str)
    table = tmp_path / "remove.csv"
    table.write_text(f"id,label\n{ids[8]},x\n\n{ids[1]},y\n")
    assert read_examples(small_study, str(table)).tolist() == [1, 8]
    named = parse_table(small_study, b"ID;x\n1\n\n1\nnobody,2\n")
    assert (named.rows.tolist(), named.unknown, named.repeated) == ([1], ["ID;x", "nobody"], 1)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataloupeError, match="UTF-8"):
        read_examples(small_study, str(table))
    with pytest.raises(DataloupeError, match="UTF-8"):
        parse_table(small_study, table.read_bytes())


def test_kept_sets_are_listed_newest_first(small_study: Study, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    for number, rows in enumerate(([1], [2, 3], [4])):
        path = layout.removal_set_file(study.root, keep_set(study, rows, f"set {number}").key)
        os.utime(path, (number, number))
    layout.removal_set_file(study.root, "0" * 16).write_text("{")
    assert [one.words for one in kept_sets(study, 3)] == ["set 2", "set 1"]


def test_principal_directions_are_those_of_the_scores(small_study: Study) -> None:
    found = read_principal_directions(small_study, 3, method="trak")
    assert found is not None
    assert found.shape == (300, 3)
    assert (found.sum(axis=0) >= 0).all()
    scores = read_score_matrix(small_study, "mlp", "trak").rows(np.arange(60))
    rows = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    first = np.linalg.svd(rows)[2][0]
    assert abs(np.corrcoef(first, found[:, 0])[0, 1]) > 0.95  # lengths are estimated there


def test_command(small_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", str(small_study.root), "--remove", "1,2,3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["removed"] == [1, 2, 3]
    assert len(found["change"]) == 60
    assert main(["whatif", str(small_study.root), "--remove", "1 2", "--method", "trak"]) == 0
    assert "Predicted without 2 training examples" in capsys.readouterr().out
    assert main(["whatif", str(small_study.root), "--remove", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
