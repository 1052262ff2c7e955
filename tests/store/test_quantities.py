"""Every quantity has one rounding, which never hides a difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine.attribution.evaluation.quality import Measured
from engine.store import quantities
from engine.store.quantities import (
    CONFIDENCE,
    INFLUENCE,
    LDS,
    OUTPUT,
    PREDICTED,
    SCORE,
    SHARE,
    SLOPE,
    Quantity,
    predicted_text,
)


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        (OUTPUT, 4.5678, "+4.57"),
        (OUTPUT, -0.0042, "−0.00420"),
        (OUTPUT, 0.0, "0"),
        (OUTPUT, -0.0, "0"),
        (OUTPUT, 9.996, "+10.0"),
        (OUTPUT, 123456.7, "+123457"),
        (OUTPUT, 1.5e7, "+1.50e+07"),
        (OUTPUT, float("nan"), "nan"),
        (INFLUENCE, 0.34651, "+0.347"),
        (SCORE, -1.23e-6, "−1.23e−06"),
        (SLOPE, 56.9123, "56.9"),
        (PREDICTED, 2013.25, "2013.25"),
        (PREDICTED, -0.5, "-0.5"),
        (PREDICTED, 1 / 3, "0.333333"),
        (CONFIDENCE, 0.98765, "98.8%"),
        (CONFIDENCE, 0.99999, ">99.9%"),
        (CONFIDENCE, 1e-5, "<0.1%"),
        (CONFIDENCE, 1.0, "100.0%"),
        (CONFIDENCE, 0.0, "0.0%"),
        (SHARE, 0.8, "80%"),
        (SHARE, 0.001, "<1%"),
        (LDS, 0.31249, "0.312"),
        (LDS, -0.0001, "0.000"),
    ],
    ids=lambda part: part.name if isinstance(part, Quantity) else str(part),
)
def test_rounding(quantity: Quantity, value: float, text: str) -> None:
    assert quantity.text(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (0.3, -0.2, "+0.300 → −0.200"),
        (0.0001, 0.0002, "+0.000100 → +0.000200"),
        (4.5671, 4.5669, "+4.5671 → +4.5669"),
        (1.0, 1.0, "+1.00 → +1.00"),
        (0.0, 0.0, "0 → 0"),
    ],
)
def test_a_change_is_never_rounded_away(before: float, after: float, text: str) -> None:
    assert OUTPUT.change(before, after) == text


@given(some.floats(-1e9, 1e9))
def test_no_value_loses_its_sign_or_its_first_three_digits(value: float) -> None:
    text = OUTPUT.text(value)
    assert text[0] == ("0" if value == 0 else "+" if value > 0 else "−")
    assert float(text.replace("−", "-")) == pytest.approx(value, rel=0.006)


def test_names_units_and_intervals() -> None:
    assert INFLUENCE.title("margin") == "influence (margin)"
    assert SCORE.title("margin") == "score (no unit)"
    assert OUTPUT.title("log-odds") == "log-odds (log-odds)"
    assert LDS.interval(Measured(0.3123, 0.29, 0.334)) == "0.312 (0.290 to 0.334)"
    assert OUTPUT.range(-0.00892, 0.295) == "−0.009 to +0.295"
    assert OUTPUT.range(0, 12.345) == "0 to +12.3"
    named = [one.name for one in vars(quantities).values() if isinstance(one, Quantity)]
    assert len(named) == len(set(named))


def test_what_is_predicted() -> None:
    assert [predicted_text(one) for one in ("Coat", 1.5, 2013.0)] == ["Coat", "1.5", "2013"]
