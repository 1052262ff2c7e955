"""Text that people type or read."""

from __future__ import annotations

import pytest

from engine.store.errors import DataloupeError
from engine.store.text import harmless, number, valid_text


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert number(-0.0001, 3) == number(0.0001, 3) == "0.000"
    assert (number(-0.0006, 3), number(-2.5, 1)) == ("−0.001", "−2.5")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_formulas_become_text(text: str) -> None:
    assert harmless(text) == "'" + text


def test_other_cells_stay() -> None:
    assert harmless("a = 1") == "a = 1"
    assert harmless("") == ""


def test_names_are_normalized_and_checked() -> None:
    assert valid_text("  cafe\u0301 ", 10, "A tag") == "café"
    assert valid_text("", 10, "A note", may_be_empty=True) == ""
    for text in ("", "a\nb", "x" * 11):
        with pytest.raises(DataloupeError, match="A tag has 1 to 10 characters in one line"):
            valid_text(text, 10, "A tag")
