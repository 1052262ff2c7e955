"""Training examples that only one of two algorithms learned, such as corrections."""

from __future__ import annotations

import numpy as np
import pytest

from engine import Study
from engine.applications.modeldiff.learned import RATE, compare_outputs, learned
from engine.cli.main import main
from tests.builders.corrections import MOVED
from tests.builders.facts import TEMPLATES


def test_corrections_stand_at_the_top(corrected_study: Study) -> None:
    kinds = corrected_study.table("train")["kind"].to_numpy()
    planted = len(MOVED) * len(TEMPLATES)
    found = learned(corrected_study, "t5", "without").by("a")
    assert set(kinds[found[:planted]]) == {"correction"}
    back = learned(corrected_study, "without", "t5").by("b")
    np.testing.assert_array_equal(back, found)
    assert "correction" not in kinds[learned(corrected_study, "t5", "without").by("b")]


def test_equal_algorithms_learned_the_same() -> None:
    """In at most 5 % of comparisons of models of one kind is any example told."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        common = generator.normal(size=200) + generator.normal(size=(10, 1))
        outputs = common + generator.normal(size=(10, 200)) * generator.uniform(0.1, 2, 200)
        found = compare_outputs(outputs[:5], outputs[5:])
        wrong += bool(len(found.by("a")) + len(found.by("b")))
    assert wrong / 400 < RATE + 3 * np.sqrt(RATE * (1 - RATE) / 400)


def test_the_terminal_names_them(
    corrected_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(corrected_study.root), "--algorithms", "t5", "without"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    rows = learned(corrected_study, "t5", "without").by("a")
    first = corrected_study.table("train")["id"][rows[0]]
    assert f"t5 learned {len(rows)} training examples that without did not: {first}," in printed


def test_single_checkpoints_tell_nothing() -> None:
    found = compare_outputs(np.array([[9.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert not len(found.by("a"))
    assert found.p.tolist() == [1, 1]


def test_ties_up_to_rounding_are_no_difference() -> None:
    """Checkpoints that agree to the last digits, such as saturated ones, shifted by rounding."""
    generator = np.random.default_rng(1)
    saturated = np.full((10, 50), 16.0) + generator.normal(size=(10, 50)) * 1e-6
    saturated[:5] += 2e-5
    usual = generator.normal(size=100) + generator.normal(size=(10, 100)) * 0.3
    for outputs in (saturated, np.concatenate([saturated, usual], axis=1)):
        found = compare_outputs(outputs[:5], outputs[5:])
        assert not len(found.by("a")) + len(found.by("b"))
    equal = np.full((10, 50), np.float32(2.5))
    assert compare_outputs(equal[:5], equal[5:]).p.tolist() == [1] * 50


def test_what_agrees_exactly_on_each_side_differs_beyond_the_floor() -> None:
    outputs = np.tile(np.linspace(-1, 1, 21), (6, 1))
    outputs[:3, 4] += 1
    outputs[:3, 9] += 0.01
    assert compare_outputs(outputs[:3], outputs[3:]).by("a").tolist() == [4]
