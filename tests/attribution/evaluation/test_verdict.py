"""The verdict on scores follows from the measurements, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from engine.attribution.evaluation.effect_sizes import TYPICAL
from engine.attribution.evaluation.quality import Calibration, Measured, MethodQuality, Quality
from engine.attribution.evaluation.verdict import Verdict, ceiling_text, chance, ordered, verdict


def around(mean: float, reach: float = 0.05) -> Measured:
    return Measured(mean, mean - reach, mean + reach)


METHOD = MethodQuality(
    title="TRAK",
    settings="5 checkpoints",
    baseline=False,
    lds=around(0.4),
    validation_lds=0.4,
    by_group={"Bag": around(0.5), "Coat": around(0.3)},
    calibration=Calibration(around(12.0, 1.0), 0.4),
)
QUALITY = Quality(
    masks={"fit": 120, "validation": 40, "test": 40},
    seeds=5,
    alpha=0.5,
    output="margin",
    preferred="trak",
    methods={"trak": METHOD},
    checkpoints=[],
    runs=[],
    tuning=[],
    ceiling=Measured(0.8, 0.75, 0.84),
)


def judged(of_each: np.ndarray | None = None, **changes: object) -> Verdict:
    method = replace(METHOD, **changes)  # type: ignore[arg-type]
    return verdict(replace(QUALITY, methods={"trak": method}), "trak", of_each)


def answers(found: Verdict) -> list[str]:
    return [use.answer for use in found.uses]


def test_good_calibrated_scores_can_be_read_as_amounts() -> None:
    found = judged()
    assert found.grade == "Good"
    assert "0.400 (0.350 to 0.450)" in found.summary
    assert "higher margin about 64 times in 100" in found.summary
    assert answers(found) == ["yes", "yes", "yes", "yes", "no"]
    assert "the margin changes by 12.0 (11.0 to 13.0) times" in found.uses[2].why
    assert "40%" in found.uses[2].why
    assert found.cautions == []


def test_sizes_are_rough_without_removal_runs() -> None:
    assert answers(judged(effects=replace(TYPICAL, removals=8)))[2] == "yes"
    rough = judged(effects=TYPICAL).uses[2]
    assert rough.answer == "care"
    assert "the size of a removal's effect is rough" in rough.why


@pytest.mark.parametrize(
    ("mean", "grade", "answer"),
    [(0.06, "Weak", "care"), (0.2, "Fair", "yes"), (0.45, "Good", "yes"), (0.7, "Strong", "yes")],
)
def test_grades(mean: float, grade: str, answer: str) -> None:
    found = judged(lds=around(mean))
    assert found.grade == grade
    assert answers(found)[:2] == [answer, answer]


def test_an_interval_with_0_means_do_not_use() -> None:
    found = judged(lds=Measured(0.1, -0.02, 0.22), coverage=0.9)
    assert found.grade == "Do not use"
    assert "0.100 (−0.020 to 0.220), holds 0" in found.summary
    # Its own intervals may be honest all the same: they are as wide as outcomes are spread.
    assert answers(found) == ["no", "no", "no", "no", "yes", "no"]


@pytest.mark.parametrize(
    ("calibration", "amounts", "compare", "reason"),
    [
        (Calibration(around(12.0, 1.0), 0.1), "care", "yes", "one retraining may well differ"),
        (Calibration(around(1.0, 2.0), 0.1), "no", "no", "no slope holds"),
        (None, "no", "no", "no slope holds"),
    ],
)
def test_units(calibration: Calibration | None, amounts: str, compare: str, reason: str) -> None:
    found = judged(calibration=calibration)
    assert answers(found)[2:4] == [amounts, compare]
    assert reason in found.uses[2].why


@pytest.mark.parametrize(
    ("coverage", "answer", "reason"),
    [(0.7, "no", "too narrow"), (0.9, "yes", "90%"), (0.99, "care", "wider")],
)
def test_intervals(coverage: float, answer: str, reason: str) -> None:
    use = judged(coverage=coverage).uses[4]
    assert use.answer == answer
    assert reason in use.why


def test_classes_with_poor_predictions_are_named() -> None:
    classes = {f"class {n}": around(0.02) for n in range(7)}
    found = judged(by_group=METHOD.by_group | classes)
    (caution,) = found.cautions
    assert "“class 0”, “class 1”, “class 2”, “class 3”, “class 4” and 2 more" in caution
    assert "Bag" not in caution
    assert answers(found)[3] == "care"


def test_few_runs_are_reported() -> None:
    assert "Few runs: 40" in judged(lds=around(0.4, 0.15)).cautions[0]
    few = replace(QUALITY, masks={"fit": 30, "validation": 10, "test": 10}, seeds=1, ceiling=None)
    cautions = verdict(few, "trak").cautions
    assert "10 held-out masks" in cautions[0]
    assert "Noise ceiling unknown: each test mask has one run" in cautions[1]


def test_the_noise_ceiling_is_shown_with_the_share_that_is_reached() -> None:
    found = ceiling_text(QUALITY, "trak")
    assert found.startswith("0.800 (0.750 to 0.840): the LDS that perfect predictions would reach")
    assert found.endswith("These scores reach 50% of it.")
    assert "reach 50%" not in ceiling_text(QUALITY)


@pytest.mark.parametrize(
    ("ceiling", "says"),
    [
        (Measured(0.3, 0.05, 0.5), "0.300 (0.050 to 0.500): the LDS that perfect predictions"),
        (Measured(0.1, -0.2, 0.3), "no more than chance would have it"),
        (Measured(-0.1, -0.3, 0.1), "no more than chance would have it"),
    ],
)
def test_no_lds_is_divided_by_a_ceiling_near_0(ceiling: Measured, says: str) -> None:
    quality = replace(QUALITY, ceiling=ceiling)
    assert quality.share_of_ceiling("trak") is None
    assert says in ceiling_text(quality, "trak")
    assert "reach 1" not in ceiling_text(quality, "trak")


@pytest.mark.parametrize(
    ("test_masks", "seeds", "why"),
    [
        (5, 2, "it takes 6 test masks, and there are 5"),
        (40, 1, "each test mask has one run"),
        (40, 2, "until the next `dataloupe build`"),
    ],
)
def test_an_unknown_ceiling_says_why(test_masks: int, seeds: int, why: str) -> None:
    masks = {"fit": 120, "validation": 40, "test": test_masks}
    quality = replace(QUALITY, masks=masks, seeds=seeds, ceiling=None)
    assert ceiling_text(quality, "trak").startswith("unknown")
    assert why in ceiling_text(quality, "trak")
    assert "\n" not in ceiling_text(quality, "trak")


def test_better_methods_and_baselines_are_named() -> None:
    methods = {
        "hybrid": replace(METHOD, title="Hybrid", lds=around(0.6)),
        "embedding": replace(METHOD, title="Similarity", lds=around(0.41), baseline=True),
        "trak": METHOD,
        "dot": replace(METHOD, title="Dot", lds=around(0.1), baseline=True),
    }
    quality = replace(QUALITY, methods=methods, preferred="hybrid")
    better, baseline = verdict(quality, "trak").cautions
    assert "prefers Hybrid: LDS 0.60" in better
    assert "“Similarity” does as well: 0.41" in baseline
    assert verdict(quality, "hybrid").cautions == []


@pytest.mark.parametrize("runs", [10, 40, 200])
def test_chance_is_what_shuffled_scores_exceed_once_in_20_times(runs: int) -> None:
    generator = np.random.default_rng(0)
    drawn = generator.normal(size=(2, 20_000, runs)).argsort(axis=-1).argsort(axis=-1)
    a, b = drawn - (runs - 1) / 2
    correlation = (a * b).mean(axis=1) / (a * a).mean(axis=1)
    assert (correlation > chance(runs)).mean() == pytest.approx(0.05, abs=0.01)
    one = stats.spearmanr(drawn[0, 0], drawn[1, 0])[0]
    assert correlation[0] == pytest.approx(one)


@pytest.mark.parametrize("wanted", [-0.5, 0.0, 0.2, 0.7, 1.0])
def test_share_of_pairs_in_the_right_order(wanted: float) -> None:
    r = 2 * np.sin(np.pi * wanted / 6)
    a, noise = np.random.default_rng(0).normal(size=(2, 4_000))
    b = r * a + np.sqrt(max(0, 1 - r**2)) * noise
    assert stats.spearmanr(a, b)[0] == pytest.approx(wanted, abs=0.03)
    pairs = (a[:, None] < a) == (b[:, None] < b)
    assert ordered(wanted) == pytest.approx(pairs[np.triu_indices(4_000, 1)].mean(), abs=0.02)


def test_test_examples_with_poor_predictions_are_counted() -> None:
    of_each = np.array([0.9, 0.5, 0.27, 0.26, 0.1, -0.3])
    (caution,) = judged(of_each).cautions
    assert caution.startswith("For 3 of 6 test examples the correlation over 40 held-out masks")
    assert judged(of_each[:3]).cautions == []
