"""Brittle predictions: planted worlds whose supports are known, and real studies end to end."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine import DataloupeError, StoreError, Study, store
from engine.applications.brittle import job
from engine.applications.brittle.supports import Supports, find, verified, verify_brittle
from engine.applications.brittle.table import (
    COLUMNS,
    as_bytes,
    as_csv,
    brittle_table,
    standing,
    write,
)
from engine.applications.verification import verify
from engine.attribution.evaluation.effect_sizes import EffectSizes
from engine.attribution.evaluation.effects import Units
from engine.attribution.evaluation.quality import Measured
from engine.cli.main import main
from engine.store import layout
from engine.study.tags import TagsAndNotes
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of

ROUGHLY = EffectSizes(
    *(1, 1, 0), ((0.0, 0.0, 0.0), (0.0, 0.35**2, 0.0), (0.0, 0.0, 0.0)), 0, 0, removals=9
)
"""Each score is the change of the margin, within 35 %."""


@pytest.fixture(scope="module")
def calibrated(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return give_units(copy_of(small_study, tmp_path_factory.mktemp("brittle") / "calibrated"))


@pytest.fixture
def copy(calibrated: Study, tmp_path: Path) -> Study:
    """A built study that a test may verify in."""
    return copy_of(calibrated, tmp_path / "copy")


def planted(
    logit_gap: list[float],
    scores: list[list[float]],
    deviation: float = 0.0,
    checkpoints: int = 4,
    probability: float = 0.5,
) -> Supports:
    """Supports of made-up gaps and scores, without errors by default."""
    gaps, score = np.array(logit_gap), np.array(scores, np.float32)
    n, k = score.shape
    return Supports(
        algorithm="mlp",
        method="hybrid",
        at_most=k,
        probability=probability,
        right=gaps > 0,
        logit_gap=gaps,
        logit_gap_deviation=np.full(n, deviation),
        agreement=np.ones(n),
        checkpoints=checkpoints,
        index=np.where(score != 0, np.arange(k, dtype=np.int32), -1),
        score=score,
        units=Units(Measured(1, 1, 1), ROUGHLY, np.full(n, 1e-12), 10**9, 0.5),
        scores="",
    )


# --- the estimate ---------------------------------------------------------------------------------


def test_the_support_is_where_the_lead_changes_its_sign() -> None:
    found = planted(
        [1.0, 1.0, -0.5, -0.5],
        [[0.6, 0.3, 0.2], [0.4, 0.3, 0.2], [-0.6, -0.1, 0], [-0.2, -0.2, 0]],
    )
    assert found.size.tolist() == [3, 0, 1, 0]
    assert found.ranked.tolist() == [2, 0]
    assert found.removal(0).tolist() == [0, 1, 2]
    assert found.removal(3, 3).tolist() == [0, 1]
    np.testing.assert_allclose(found.after(np.array([0]))[0], [0.4, 0.1, -0.1], atol=1e-6)


def test_flips_are_said_only_beyond_the_error() -> None:
    # Removing k changes the logit_gap by −k ± 0.35·k, so 1.28 deviations below 0 is at k·0.552 > 1.
    scores, many = [[1.0] * 6], 10_000
    assert planted([1.0], scores, probability=0.9).size.tolist() == [2]
    assert planted([2.0], scores, probability=0.9).size.tolist() == [4]
    # What the checkpoints leave open of the logit_gap counts, too.
    assert planted([1.0], scores, 75.0, many, 0.9).size.tolist() == [3]
    # Few checkpoints know less about their own error: Student's t.
    assert planted([1.0], scores, 75.0, many, 0.85).size.tolist() == [3]
    assert planted([1.0], scores, 1.5, 2, 0.85).size.tolist() == [3]
    assert planted([1.0], scores, 1.5, 2, 0.9).size.tolist() == [4]


def test_nothing_is_said_where_checkpoints_disagree() -> None:
    found = planted([1.0, 1.0], [[2.0, 2.0]] * 2)
    assert replace(found, agreement=np.array([1.0, 0.8])).size.tolist() == [1, 0]


@given(st.integers(0, 10_000))
def test_a_larger_lead_never_needs_fewer(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = np.sort(generator.gamma(1, 0.3, size=8))[::-1]
    gaps = np.sort(generator.gamma(1, 1.0, size=5)) + 1e-3
    sizes = planted(gaps.tolist(), [scores.tolist()] * 5, deviation=0.3).size
    needed = np.where(sizes == 0, 99, sizes)
    assert (np.diff(needed) >= 0).all()


def test_probabilities_are_those_of_a_normal_world() -> None:
    found = planted([1.0, -1.0], [[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5]], 100.0, 10_000)
    changes = np.array([0.5, 1.0, 1.5])
    wanted = stats.norm.cdf((changes - 1) / np.hypot(1.0, 0.35 * changes))
    for probabilities in found.flip_probability(np.arange(2)):
        np.testing.assert_allclose(probabilities, wanted, atol=1e-3)
    np.testing.assert_allclose(
        found.chance_probability(np.arange(2)), stats.norm.cdf(-1), atol=0.01
    )


@pytest.mark.parametrize("checkpoints", [2, 3, 5, 20])
@pytest.mark.parametrize("effect", ["as predicted", "none"])
def test_a_probability_is_the_share_that_flips(checkpoints: int, effect: str) -> None:
    """In worlds whose truth is drawn from the model; with nothing removed (`none`), by chance."""
    generator = np.random.default_rng(checkpoints)
    n, k = 40_000, 5
    truth = generator.uniform(-8, 8, n)
    spread = np.exp(generator.uniform(-3, 1.5, n))  # of no particular size, as for Student's t
    each = generator.normal(truth, spread, (checkpoints, n))
    gaps = each.mean(axis=0)
    scores = np.sign(gaps)[:, None] * generator.uniform(0.1, 1, (n, k))
    if effect == "none":
        scores *= 0
    total = scores.sum(axis=1)
    found = planted(gaps.tolist(), scores.tolist(), 0.0, checkpoints)
    found = replace(found, logit_gap_deviation=each.std(axis=0, ddof=1))
    flips = (truth - total * generator.normal(1, 0.35, n) > 0) != (gaps > 0)
    rows = np.arange(n)
    likely = (
        found.chance_probability(rows) if effect == "none" else found.flip_probability(rows)[:, -1]
    )
    for low, high in itertools.pairwise((0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1)):
        these = (likely >= low) & (likely < high)
        if these.sum() > 100:
            beyond = flips[these].mean() - likely[these].mean()
            tolerance = 0.02 + 2 / np.sqrt(these.sum())
            assert beyond < tolerance
            # Two that happen to agree are trusted less than they could be.
            assert beyond > -tolerance or checkpoints == 2
    chosen = likely >= 0.8
    assert effect == "none" or chosen.sum() > 3000
    assert not chosen.any() or flips[chosen].mean() == pytest.approx(
        likely[chosen].mean(), abs=0.02
    )


def test_a_planted_linear_world_flips_where_it_is_said_to() -> None:
    """Predictions that are linear in who is trained on, with noisy scores: nine in ten flip."""
    generator = np.random.default_rng(0)
    n, trains, k = 400, 300, 20
    weights = generator.gamma(0.3, 0.1, size=(n, trains))
    noise = 0.02
    noisy = weights + generator.normal(scale=noise, size=weights.shape)
    order = np.argsort(-noisy, axis=1)[:, :k]
    scores = np.take_along_axis(noisy, order, axis=1)
    logit_gap = generator.uniform(0.1, 2.0, size=n)
    found = planted(logit_gap.tolist(), scores.tolist(), probability=0.9)
    found = replace(found, index=order.astype(np.int32))
    ranked = found.ranked
    after = [logit_gap[row] - weights[row, found.removal(row)].sum() for row in ranked]
    assert len(ranked) > 50
    assert np.mean(np.array(after) < 0) > 0.9


# --- of a study -----------------------------------------------------------------------------------


def test_the_logit_gap_is_that_of_the_mean_logits(small_study: Study) -> None:
    found, predictions = find(small_study), small_study.predictions("test")
    np.testing.assert_array_equal(found.logit_gap > 0, predictions["correct"])
    files = [layout.outputs_file(small_study.root, "mlp", m, "test") for m in (0, 1)]
    each = np.array([store.read_tensors(file)["logits"] for file in files], np.float64)
    label = small_study.dataset.classes.index(small_study.table("test")["label"].iloc[7])
    mean = each.mean(axis=0)[7]
    gap = mean[label] - np.delete(mean, label).max()
    assert found.logit_gap[7] == pytest.approx(gap, abs=1e-5)
    together = each[:, 7].argmax(axis=1) == mean.argmax()
    assert found.agreement[7] == pytest.approx(together.mean())
    runner_up = np.where(np.arange(10) == label, -np.inf, mean).argmax()
    gaps = each[:, 7, label] - each[:, 7, runner_up]
    assert found.logit_gap_deviation[7] == pytest.approx(np.std(gaps, ddof=1), abs=1e-5)


def test_removal_sets_are_the_strongest_of_the_score_matrix(small_study: Study) -> None:
    stored, longer = find(small_study, at_most=20), find(small_study, at_most=45)
    scores = small_study.scores(range(60))
    for found in (stored, longer):
        for test in range(60):
            row = scores[test] if found.right[test] else -scores[test]
            index = found.index[test][found.index[test] >= 0]
            wanted = np.argsort(-row, kind="stable")[: len(index)]
            np.testing.assert_array_equal(row[index], row[wanted])
    np.testing.assert_array_equal(stored.index, longer.index[:, :20])


def test_no_removal_set_holds_a_whole_class(small_study: Study) -> None:
    labels = small_study.table("train")["label"].to_numpy()
    smallest = pd.Series(labels).value_counts().min()
    found = find(small_study, at_most=300)
    assert smallest < 300
    for test in range(60):
        left = np.setdiff1d(np.arange(300), found.removal(test, 300))
        assert set(labels[left]) == set(labels)


@pytest.mark.parametrize("at_most", [0, 1001])
def test_at_most_is_checked(small_study: Study, at_most: int) -> None:
    with pytest.raises(DataloupeError, match="at_most must be from 1 to 1,000"):
        find(small_study, at_most=at_most)


def test_scores_without_units_are_ranked_and_no_more(copy: Study, tmp_path: Path) -> None:
    bare = Study.open(shutil.copytree(copy.root, tmp_path / "bare"))
    shutil.rmtree(layout.quality_folder(bare.root, "mlp"))
    found = find(bare, method="trak")
    assert not found.calibrated
    assert not len(found.ranked)
    table = brittle_table(bare, found, rows=np.arange(3)).to_pandas()
    assert table["support"].isna().all()
    assert table["logit_gap_after"].isna().all()
    assert set(table["status"]) == {"not within"}
    with pytest.raises(DataloupeError, match="not predicted to flip by removing at most 20"):
        verify_brittle(bare, found, [0])


# --- verifying ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_proven(
    calibrated: Study, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, Supports, list[int]]:
    """A study in which the two most brittle predictions are verified by one seed."""
    study = copy_of(calibrated, tmp_path_factory.mktemp("brittle") / "proven")
    found = find(study, at_most=20)
    tests = found.ranked[:2].tolist()
    assert len(tests) == 2
    verify_brittle(study, found, tests, seeds=1, workers=0)
    return study, found, tests


@pytest.fixture
def proven(shared_proven: tuple, tmp_path: Path) -> tuple[Study, Supports, list[int]]:
    """A copy of it."""
    study, found, tests = shared_proven
    return copy_of(study, tmp_path / "proven"), found, tests


def test_a_verification_belongs_to_its_removal_set(proven: tuple) -> None:
    study, found, tests = proven
    verify(study, found.removal(tests[0])[:-1].tolist() or [0], tests=[tests[0]], seeds=1)
    proofs = verified(found, study.verifications())
    assert sorted(proofs) == sorted(tests)
    table = brittle_table(study, found, study.verifications()).to_pandas().set_index("row")
    for test in tests:
        outcome = proofs[test].of(test)
        assert table.loc[test, "status"] == ("verified" if outcome.flipped else "refuted")
        assert table.loc[test, "flip_rate"] == outcome.flips.mean
        assert table.loc[test, "verification"] == proofs[test].id
    assert set(table["status"].drop(tests)) <= {"predicted"}
    assert (table["flip_probability"] >= found.probability).all()  # the rule of the list
    counts = standing(brittle_table(study, found, study.verifications()))
    assert counts["verified"] + counts["refuted"] == len(tests)


def test_the_queue_checks_and_runs_it(proven: tuple) -> None:
    study, found, tests = proven
    request = job.check_job(study, {"tests": [f"test-{tests[0]}"], "seeds": 1})
    assert request["tests"] == [tests[0]]
    assert json.loads(json.dumps(request)) == request
    answer = job.run_job(study, request, lambda done, total, what: None)
    assert answer["tests"] == 1
    with pytest.raises(DataloupeError, match="at least one prediction"):
        job.check_job(study, {})
    with pytest.raises(DataloupeError, match="no parameter 'colour'"):
        job.check_job(study, {"tests": [1], "colour": 3})
    stable = int(np.flatnonzero(found.size == 0)[0])
    with pytest.raises(DataloupeError, match="not predicted to flip"):
        job.check_job(study, {"tests": [stable]})


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(shared_proven: tuple) -> pa.Table:
    study, found, tests = shared_proven
    notes = TagsAndNotes(tags=["=cmd()", "look; at"], notes=["+1", "plain"])
    issues = {"label": np.arange(60) == tests[0]}
    return brittle_table(study, found, study.verifications(), issues, {tests[0]: notes})


def test_parquet_opens_in_pandas_with_the_stated_types(table: pa.Table, tmp_path: Path) -> None:
    write(table, tmp_path / "brittle.parquet")
    assert pq.read_schema(tmp_path / "brittle.parquet").equals(COLUMNS)
    found = pd.read_parquet(tmp_path / "brittle.parquet")
    assert list(found.columns) == COLUMNS.names
    assert found["support"].dtype == np.int64
    assert found["correct"].dtype == bool
    assert len(found["removal_rows"].iloc[0]) == found["support"].iloc[0]


def test_json_and_csv_say_the_same(table: pa.Table, tmp_path: Path) -> None:
    for name in ("brittle.json", "brittle.csv"):
        write(table, tmp_path / name)
    result = json.loads((tmp_path / "brittle.json").read_text())
    assert result == table.to_pylist()
    found = pd.read_csv(tmp_path / "brittle.csv")
    assert found["row"].tolist() == [one["row"] for one in result]
    np.testing.assert_allclose(found["logit_gap"], [one["logit_gap"] for one in result])
    rows = [[str(row) for row in one["removal_rows"]] for one in result]
    assert found["removal_rows"].astype(str).str.split(";").tolist() == rows


def test_no_cell_is_a_formula(table: pa.Table) -> None:
    found = pd.read_csv(io.StringIO(as_csv(table)), keep_default_na=False, dtype=str)
    assert found["tags"].iloc[0] == "'=cmd();look, at"
    assert found["notes"].iloc[0] == "'+1;plain"
    texts = found[["id", "label", "tags", "notes", "data_issues", "removal_ids"]]
    assert not texts.stack().str.match(r"[=+\-@\t\r]").any()


def test_another_format_and_another_folder_are_refused(table: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(DataloupeError, match=r"must end with one of \.csv"):
        write(table, tmp_path / "brittle.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataloupeError, match="cannot be written"):
        write(table, tmp_path / "file" / "brittle.csv")


def test_a_full_disk_leaves_what_was_there(table: pa.Table) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    folder = Path("/dev/shm/dataloupe-full")
    folder.mkdir(exist_ok=True)
    target = folder / "brittle.csv"
    target.write_text("before")

    def no_space(path: Path, content: bytes) -> int:
        with full.open("wb", buffering=0) as file:  # the kernel's own "no space left"
            return file.write(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_space)
        with pytest.raises(StoreError, match="disk is full"):
            write(table, target)
    assert target.read_text() == "before"
    assert sorted(folder.iterdir()) == [target]
    shutil.rmtree(folder)


def test_an_empty_table_has_its_types(copy: Study) -> None:
    empty = brittle_table(copy, find(copy), rows=np.array([], int))
    assert empty.schema.equals(COLUMNS)
    assert as_bytes(empty, "json") == b"[]\n"


# --- the command line -----------------------------------------------------------------------------


def test_the_command_line_lists_verifies_and_exports(
    proven: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _, tests = proven
    arguments = ["brittle", str(study.root), "--verify", "2", "--seeds", "1", "--workers", "0"]
    out = tmp_path / "brittle.csv"
    assert main([*arguments, "--out", str(out)]) == 0
    assert "are predicted to flip by removing at most 20" in capsys.readouterr().out
    found = pd.read_csv(out)
    assert found["row"].tolist()[:2] == tests
    assert set(found["status"][:2]) <= {"verified", "refuted"}
    assert main([*arguments, "--json"]) == 0
    assert [one["row"] for one in json.loads(capsys.readouterr().out)][:2] == tests


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--out", "brittle.xlsx"], "unknown format"),
        (["--probability", "0.4"], "probability must be from 0.5"),
        (["--at-most", "0"], "at_most must be from 1"),
        (["--verify", "1", "--seeds", "0"], "seeds must be from 1"),
    ],
)
def test_mistakes_are_one_line(
    copy: Study, extra: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["brittle", str(copy.root), *extra]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_study_that_is_not_built_says_so(
    study_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["brittle", str(study_folder)]) == 2
    assert "has no scores yet" in capsys.readouterr().err
