"""Scores and top-k against dense numpy."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.attribution.scores import blocks, dense, factors, strongest
from engine.attribution.scores import top_k as top_k_module
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores, combine
from engine.attribution.scores.read_ahead import Seconds, read_ahead
from engine.attribution.scores.strongest import Strongest, TopK
from engine.attribution.scores.top_k import merge, rank, stacked, top_k
from engine.attribution.scores.totals import Totals
from engine.store import read_tensors, write_tensors
from engine.store.errors import StoreError


def shrunk(tau, threshold):
    return (
        tau if threshold is None else np.sign(tau) * np.maximum(np.abs(tau) - threshold[:, None], 0)
    )


@pytest.fixture(params=["dense", "factors", "one checkpoint", "float16", "threshold"])
def case(request):
    """(scores, τ before the threshold, τ after it), 230 training and 37 test examples."""
    rng = np.random.default_rng(3)
    n, t = 230, 37
    threshold = (
        rng.random(t, dtype=np.float32) * 2 if request.param in ("dense", "threshold") else None
    )
    if request.param == "dense":
        tau = rng.standard_normal((t, n), dtype=np.float32) * 3
        return DenseScores([tau[:10], tau[10:]], threshold), tau, shrunk(tau, threshold)
    dtype = np.float16 if request.param == "float16" else np.float32
    widths = [12] if request.param == "one checkpoint" else [12, 7, 9]
    phi = [rng.standard_normal((n, p)).astype(dtype) for p in widths]
    g = [rng.standard_normal((t, p), dtype=np.float32) for p in widths]
    q = rng.random(n, dtype=np.float32)
    tau = q * np.mean([b @ a.astype(np.float64).T for a, b in zip(phi, g, strict=True)], axis=0)
    features = [[a[:100], a[100:100], a[100:]] for a in phi]
    return FactorScores(features, g, q, threshold), tau, shrunk(tau, threshold)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_BLOCK_ROWS", 16)
    monkeypatch.setattr(factors, "MAX_BLOCK_ROWS", 16)
    for module in (dense, factors):
        monkeypatch.setattr(module, "TESTS_PER_TILE", 20)


def close(found, expected):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pieces_equal_the_dense_matrix(case):
    scores, _, tau = case
    rng = np.random.default_rng(0)
    tests, trains = np.array([36, 0, 5, 5]), np.array([229, 0, 100, 99, 100])
    candidates = rng.integers(0, 230, (4, 9))
    assert (scores.n_test, scores.n_train) == tau.shape
    close(scores.rows(tests), tau[tests])
    close(scores.columns(trains), tau[:, trains])
    close(scores.pairs(tests, candidates), np.take_along_axis(tau[tests], candidates, axis=1))


def test_pairs_of_more_tests_than_a_group(case):
    scores, _, tau = case
    tests = np.random.default_rng(0).integers(0, 37, 150)
    candidates = np.random.default_rng(1).integers(0, 230, (150, 6))
    close(scores.pairs(tests, candidates), np.take_along_axis(tau[tests], candidates, axis=1))


@pytest.mark.parametrize("trains", [None, range(17, 150), range(4, 4)])
def test_tiles_cover_the_range_in_order(case, trains):
    scores, _, tau = case
    wanted = trains if trains is not None else range(230)
    found = np.full((37, 230), np.nan, np.float32)
    corners = []
    for tile in scores.tiles(trains):
        tests, columns = (slice(r.start, r.stop) for r in (tile.tests, tile.trains))
        assert np.isnan(found[tests, columns]).all()
        found[tests, columns] = tile.scores
        corners.append((tile.trains.start, tile.tests.start))
        assert len(tile.trains) <= 16
        assert len(tile.tests) <= 20
    assert corners == sorted(corners)
    mine = slice(wanted.start, wanted.stop)
    close(found[:, mine], tau[:, mine])
    assert np.isnan(np.delete(found, np.arange(230)[mine], axis=1)).all()


@pytest.mark.parametrize("trains", [None, range(17, 150)])
def test_products_are_those_of_the_linear_operator(case, trains):
    scores, tau, _ = case
    rng = np.random.default_rng(0)
    part = tau if trains is None else tau[:, trains.start : trains.stop]
    x = rng.standard_normal((part.shape[1], 3), dtype=np.float32)
    y = rng.standard_normal((37, 3), dtype=np.float32)
    close(scores.matmat(x, trains) / 10, part @ x / 10)
    close(scores.rmatmat(y, trains) / 10, part.T @ y / 10)


def test_combine_is_a_product_of_means():
    total, q = np.array([[2.0, 4.0]], np.float32), np.array([0.5, 0.25], np.float32)
    np.testing.assert_array_equal(combine(total, 2, q), [[0.5, 0.5]])


def test_shards_that_do_not_fit_together_are_refused():
    phi, g, q = np.zeros((5, 3), "f4"), np.zeros((2, 4), "f4"), np.zeros(5, "f4")
    with pytest.raises(StoreError, match="do not belong together"):
        FactorScores([[phi]], [g], q).rows(np.array([0]))
    with pytest.raises(StoreError, match="do not fit together"):
        DenseScores([np.zeros((2, 3), "f4"), np.zeros((2, 4), "f4")]).rows(np.array([0]))


# --- top-k -------------------------------------------------------------------------------------


def sorted_top(tau, k, sign):
    """Oracle: full stable sort of each row."""
    index = np.argsort(-sign * tau, axis=1, kind="stable")[:, :k]
    score = np.take_along_axis(tau, index, axis=1)
    score = np.pad(score, ((0, 0), (0, k - index.shape[1])))
    index = np.pad(index, ((0, 0), (0, k - index.shape[1])), constant_values=-1)
    wrong = score * sign <= 0
    return np.where(wrong, -1, index), np.where(wrong, 0, score)


def assert_top(top, tau, k):
    for name, sign in (("support", 1), ("oppose", -1)):
        index, score = sorted_top(tau, k, sign)
        np.testing.assert_array_equal(getattr(top, f"{name}_index"), index)
        np.testing.assert_array_equal(getattr(top, f"{name}_score"), score)
        assert getattr(top, f"{name}_index").dtype == np.int32
        assert getattr(top, f"{name}_score").dtype == np.float32


@pytest.fixture(params=["plain", "compiled"])
def loops(request, monkeypatch):
    """Both ways to keep the strongest scores, however few there are."""
    monkeypatch.setattr(top_k_module, "_COMPILED_FROM", 0 if request.param == "compiled" else 2**62)


FIXTURE_STAYS = [HealthCheck.function_scoped_fixture]


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURE_STAYS)
@given(
    seed=st.integers(0, 2**20),
    n_test=st.integers(1, 70),
    n_train=st.integers(1, 130),
    k=st.integers(1, 50),
    values=st.sampled_from(["ties", "positive", "negative", "zero", "rising", "floats"]),
    memory=st.integers(1, 20_000),
)
def test_top_k_equals_a_full_sort(loops, seed, n_test, n_train, k, values, memory):
    rng = np.random.default_rng(seed)
    tau = {
        "ties": lambda: rng.integers(-2, 3, (n_test, n_train)),
        "positive": lambda: rng.integers(1, 4, (n_test, n_train)),
        "negative": lambda: -rng.random((n_test, n_train)),
        "zero": lambda: np.zeros((n_test, n_train)) * -1,
        "rising": lambda: np.arange(n_test * n_train).reshape(n_test, n_train),
        "floats": lambda: rng.standard_normal((n_test, n_train)) * 1e-20,
    }[values]().astype(np.float32)
    by_test, by_train = top_k(DenseScores([tau]), k, memory_bytes=memory)
    assert_top(by_test, tau, k)
    assert_top(by_train, tau.T, k)


@settings(max_examples=40, deadline=None, suppress_health_check=FIXTURE_STAYS)
@given(
    seed=st.integers(0, 2**20),
    cuts=st.lists(st.integers(0, 90), max_size=3),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    k=st.integers(1, 12),
    memory=st.integers(1, 30_000),
)
def test_top_k_of_factors_equals_a_full_sort(loops, seed, cuts, widths, k, memory):
    """Whole numbers, so that every order of summing gives the same scores and there are many ties;
    several checkpoints, in shards of any size."""
    rng = np.random.default_rng(seed)
    phi = [rng.integers(-2, 3, (90, width)).astype(np.float32) for width in widths]
    g = [rng.integers(-2, 3, (35, width)).astype(np.float32) for width in widths]
    q = 2.0 ** rng.integers(-1, 2, 90).astype(np.float32) * len(widths)
    tau = q / len(widths) * sum(b @ a.T for a, b in zip(phi, g, strict=True))
    scores = FactorScores([np.split(part, sorted(cuts)) for part in phi], g, q)
    by_test, by_train = top_k(scores, k, memory_bytes=memory)
    assert_top(by_test, scores.rows(np.arange(35)), k)
    np.testing.assert_allclose(scores.rows(np.arange(35)), tau, rtol=1e-6)
    assert_top(by_train, scores.rows(np.arange(35)).T, k)


@settings(max_examples=20, deadline=None, suppress_health_check=FIXTURE_STAYS)
@given(cut=st.integers(1, 59), k=st.integers(1, 30), seed=st.integers(0, 99))
def test_shards_merge_to_what_one_pass_finds(loops, cut, k, seed):
    tau = np.random.default_rng(seed).integers(-3, 4, (8, 60)).astype(np.float32)
    parts = [top_k(DenseScores([tau]), k, trains) for trains in (range(cut), range(cut, 60))]
    assert_top(merge([by_test for by_test, _ in parts]), tau, k)
    for (_, by_train), rows in zip(parts, (tau.T[:cut], tau.T[cut:]), strict=True):
        assert_top(by_train, rows, k)


def test_passes_that_follow_each_other_are_one_pass(loops, case):
    scores, _, _ = case
    of_tests = Strongest(scores.n_test, 5)
    seconds = Seconds()
    blocks = [
        block
        for trains in (range(96), range(96, 230))
        for block in rank(scores, of_tests, trains, seconds=seconds)
    ]
    assert [rows.start for rows, _ in blocks] == list(range(0, 230, 16))
    whole = top_k(scores, 5)
    for found, expected in zip(
        (of_tests.top(), stacked([b for _, b in blocks])), whole, strict=True
    ):
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), array)
    assert seconds.selecting > 0
    assert seconds.multiplying > 0 or isinstance(scores, DenseScores)


def test_top_k_of_every_form(loops, case):
    scores, _, tau = case
    by_test, by_train = top_k(scores, 5)
    for top, wanted in ((by_test, tau), (by_train, tau.T)):
        index, score = sorted_top(wanted, 5, 1)
        close(top.support_score, score)
        np.testing.assert_array_equal(top.support_index, index)
        np.testing.assert_array_equal(top.oppose_index, sorted_top(wanted, 5, -1)[0])


def test_top_k_does_not_depend_on_the_memory_of_the_machine(case):
    scores, _, _ = case
    first, second = (top_k(scores, 5, memory_bytes=b)[0] for b in (2**24, 2**34))
    for name in TopK.__dataclass_fields__:
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_totals_add_up_over_shards_and_tiles(loops, case):
    scores, _, tau = case
    totals = Totals.zeros(scores.n_test, scores.n_train)
    cut = scores.n_train // 3
    for trains in (range(cut), range(cut, scores.n_train)):
        top_k(scores, 5, trains, memory_bytes=4000, totals=totals)
    for sign, part in (("support", np.maximum(tau, 0)), ("oppose", np.minimum(tau, 0))):
        for side, axis in (("test", 1), ("train", 0)):
            found = getattr(totals, f"{side}_{sign}")
            np.testing.assert_allclose(found, part.sum(axis=axis, dtype=np.float64), rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(loops, bad):
    tau = np.ones((3, 40), np.float32)
    tau[1, 30] = bad
    with pytest.raises(StoreError, match="examples 16 to 31 are not all finite"):
        top_k(DenseScores([tau]), 2)


# --- reading ahead -------------------------------------------------------------------------------


def test_one_block_is_read_ahead_into_the_other_buffer():
    read, buffers = [], [None, None]
    allowed = threading.Semaphore(0)

    def fill(item, slot):
        buffers[slot] = item
        read.append(item)
        allowed.release()
        return slot

    seen = []
    for slot in read_ahead(fill, range(5), Seconds()):
        seen.append(buffers[slot])
        if len(seen) < 5:  # the next one is read while this one is in use, and does not replace it
            for _ in range(2 if len(seen) == 1 else 1):
                allowed.acquire(timeout=60)
        assert len(read) == min(len(seen) + 1, 5)
        assert buffers[slot] == seen[-1]
    assert seen == list(range(5))


def test_an_error_of_reading_reaches_the_caller():
    def fill(item, slot):
        if item == 2:
            raise StoreError("broken")
        return item

    seen = []
    with pytest.raises(StoreError, match="broken"):
        seen.extend(read_ahead(fill, range(4), Seconds()))


# --- memory ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(memory=st.integers(1, 2**34), row=st.integers(1, 2**24))
def test_tiles_fit_into_memory(memory, row):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_BLOCK_ROWS", 4096)
        rows = blocks.block_rows(memory, row)
    assert 1 <= rows <= 4096
    assert rows & (rows - 1) == 0
    assert rows * row <= memory or rows == 1


@pytest.mark.parametrize("solver", ["dense", "factors"])
def test_temporaries_are_bounded(monkeypatch, solver):
    """All scratch of a top-k pass over 3,000 × 300 scores (3.6 MB) fits into 1 MB."""
    monkeypatch.setattr(blocks, "MAX_BLOCK_ROWS", 4096)
    monkeypatch.setattr(strongest, "_PIECE", 2**10)
    used = []

    class Counting(blocks.Workspace):
        def __init__(self):
            super().__init__()
            used.append(self)

    for user in (dense, factors, top_k_module):
        monkeypatch.setattr(user, "Workspace", Counting)
    rng = np.random.default_rng(0)
    phi, g = rng.random((3000, 20), dtype="f4"), rng.random((300, 20), dtype="f4")
    scores = {
        "dense": DenseScores([g @ phi.T], np.ones(300, "f4")),
        "factors": FactorScores([[phi]], [g], np.ones(3000, "f4"), np.ones(300, "f4")),
    }[solver]
    top_k(scores, 3, memory_bytes=2**20)
    assert 2**17 < sum(a.nbytes for space in used for a in space._flat.values()) <= 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_mapped_shards_are_released(tmp_path):
    """A pass over 64 MiB of mapped features leaves under 16 MiB of them in this process."""

    def mapped():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024

    write_tensors(tmp_path / "a.safetensors", {"features": np.ones((65_536, 256), "f4")}, "x")
    features = read_tensors(tmp_path / "a.safetensors")["features"]
    scores = FactorScores([[features]], [np.ones((2, 256), "f4")], np.ones(65_536, "f4"))
    before = mapped()
    for tile in scores.tiles():
        assert len(tile.tests) == 2
    assert mapped() - before < 16 * 2**20


def test_importing_scores_and_search_is_light():
    code = (
        "import sys, engine.attribution.scores, engine.attribution.search.vector_index\n"
        "assert not {'torch', 'faiss', 'streamlit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
