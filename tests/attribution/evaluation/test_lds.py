"""LDS: Spearman against SciPy, the interval against repeated draws, and refused input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from engine.attribution.evaluation.lds import Lds, interval_of_one, lds, spearman
from engine.attribution.evaluation.quality import Measured
from engine.store.errors import DataError

# few distinct values, so that ties are common
tied = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(3, 30)), elements=st.integers(-3, 3)
)


def linear_world(n_test=40, n_train=60, m=50, noise=0.0, common=0.0, seed=0):
    """Outputs are linear, but for noise of each (test, run) and noise that a run's tests share."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_test, n_train)).astype(np.float32)
    masks = rng.random((m, n_train)) < 0.5
    outputs = masks @ scores.T + noise * rng.normal(size=(m, n_test))
    outputs += common * rng.normal(size=(m, 1))
    return scores, masks, outputs


@settings(max_examples=60, deadline=None)
@given(tied, st.integers(0, 2**31))
def test_spearman_equals_scipy(a, seed):
    b = np.random.default_rng(seed).integers(-3, 4, size=a.shape).astype(float)
    for row_a, row_b, found in zip(a, b, spearman(a, b), strict=True):
        if np.ptp(row_a) == 0 or np.ptp(row_b) == 0:
            assert found == 0
        else:
            assert found == pytest.approx(stats.spearmanr(row_a, row_b).statistic, abs=1e-12)


def test_lds_is_the_mean_of_scipys_correlation_over_test_examples():
    scores, masks, outputs = linear_world(noise=5.0)
    found = lds(scores, masks, outputs)
    wanted = [
        stats.spearmanr(masks @ row.astype(float), outputs[:, test]).statistic
        for test, row in enumerate(scores)
    ]
    np.testing.assert_allclose(
        found.per_test, wanted, atol=1e-3
    )  # float32 sums may swap neighbours
    assert found.mean == pytest.approx(np.mean(wanted), abs=1e-3)
    assert found.n_runs == len(masks)


def test_a_perfect_predictor_scores_one_and_its_negative_minus_one():
    scores, masks, outputs = linear_world()
    assert lds(scores, masks, outputs).mean == pytest.approx(1, abs=1e-3)
    assert lds(-scores, masks, outputs).mean == pytest.approx(-1, abs=1e-3)


def test_shuffled_scores_have_an_lds_of_about_zero():
    scores, masks, outputs = linear_world(n_test=200, m=100)
    shuffled = np.random.default_rng(1).permuted(scores, axis=1)
    found = lds(shuffled, masks, outputs)
    assert abs(found.mean) < 0.04
    assert found.low < 0 < found.high


def test_only_the_order_of_outputs_counts():
    scores, masks, outputs = linear_world(noise=5.0)
    np.testing.assert_array_equal(
        lds(scores, masks, outputs).per_test, lds(scores, masks, np.exp(outputs / 10)).per_test
    )


@pytest.mark.parametrize(("noise", "common"), [(0.0, 8.0), (8.0, 0.0)])
def test_interval_is_as_wide_as_the_score_varies(noise, common):
    """Over fresh draws of runs and tests the score varies by what one draw's bootstrap says; noise
    of each (test, run) pair is counted up to thrice (variance), so √3 is the most."""
    worlds = [linear_world(30, 60, 40, noise, common, seed) for seed in range(80)]
    draws = [lds(*world, resamples=200) for world in worlds]
    spread = np.std([draw.mean for draw in draws])
    stated = np.mean([(draw.high - draw.low) / (2 * 1.96) for draw in draws])
    assert 0.8 < stated / spread < 1.9
    truth = np.mean([draw.mean for draw in draws])
    assert np.mean([draw.low < truth < draw.high for draw in draws]) > 0.85


def test_the_interval_depends_on_runs_as_well_as_test_examples():
    """All tests alike: resampling tests alone would give an interval of no width."""
    scores, masks, outputs = linear_world(n_test=1, m=20, noise=8.0)
    found = lds(np.repeat(scores, 50, axis=0), masks, np.repeat(outputs, 50, axis=1))
    assert found.high - found.low > 0.1


def test_the_interval_equals_a_bootstrap_drawn_one_by_one():
    scores, masks, outputs = linear_world(n_test=8, m=12, noise=8.0)
    outputs = outputs.round()  # ties
    found = lds(scores, masks, outputs, confidence=0.5, resamples=40, seed=3)
    predicted = masks @ scores.T.astype(np.float32)
    rng = np.random.default_rng(3)
    runs = rng.multinomial(12, np.full(12, 1 / 12), size=40)
    tests = rng.multinomial(8, np.full(8, 1 / 8), size=40)
    means = []
    for run, test in zip(runs, tests, strict=True):
        drawn = np.repeat(np.arange(12), run)
        values = [
            stats.spearmanr(predicted[drawn, t], outputs[drawn, t]).statistic for t in range(8)
        ]
        means.append(np.dot(test, values) / 8)
    wanted = np.quantile(means, [0.25, 0.75]) - np.mean(means) + found.mean
    np.testing.assert_allclose([found.low, found.high], wanted, atol=1e-4)


def test_with_few_runs_the_interval_is_symmetric():
    """Runs drawn twice tie, so resamples alone lie below the score."""
    draws = [lds(*linear_world(100, 20, 60, 4.0, 0.0, seed)) for seed in range(20)]
    middle = np.mean([(draw.low + draw.high) / 2 for draw in draws])
    assert middle == pytest.approx(np.mean([draw.mean for draw in draws]), abs=0.005)


def test_the_same_seed_gives_the_same_interval():
    world = linear_world(noise=5.0)
    first, second = lds(*world), lds(*world)
    assert (first.low, first.high) == (second.low, second.high)
    assert isinstance(first, Lds)
    assert first.low < first.mean < first.high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, m, o: (s.T, m, o), "do not fit"),
        (lambda s, m, o: (s, m, o.T), "do not fit"),
        (lambda s, m, o: (s, m[:2], o[:2]), "needs 3 subset runs"),
        (lambda s, m, o: (s * np.nan, m, o), "scores hold NaN"),
        (lambda s, m, o: (s, m, np.where(o > 0, o, np.inf)), "outputs of the subset runs hold NaN"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        lds(*change(*linear_world()))


@pytest.mark.parametrize("runs", [8, 40])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.85])
def test_the_interval_of_one_example_covers_what_it_should(runs: int, correlation: float) -> None:
    """Spearman's correlation of normal pairs; at 0, scores that have nothing to do with outputs."""
    generator = np.random.default_rng(runs)
    both = generator.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], (4000, runs))
    found = spearman(both[..., 0], both[..., 1])
    truth = 6 / np.pi * np.arcsin(correlation / 2)
    intervals = [interval_of_one(float(one), runs) for one in found]
    covered = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.93 <= covered <= 0.985
    assert interval_of_one(0.5, 3) == Measured(0.5, -1.0, 1.0)
    assert interval_of_one(1.0, runs).high <= 1
