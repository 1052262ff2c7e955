"""Text that people type or read: names and tags, numbers, spreadsheet cells."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from engine.store.errors import DataloupeError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text cell for a formula."""
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")


def valid_text(text: str, longest: int, what: str, may_be_empty: bool = False) -> str:
    """The text in Unicode normal form C, without surrounding space.

    Args:
        text: What a person typed.
        longest: The most characters it may have.
        what: What it is, as the error begins: `A tag`.
        may_be_empty: Whether an empty text is allowed.

    Raises:
        DataloupeError: The text is empty, too long, or more than one line.
    """
    text = unicodedata.normalize("NFC", text).strip()
    controls = any(unicodedata.category(character) in _CONTROLS for character in text)
    if len(text) > longest or controls or not (text or may_be_empty):
        least = "up" if may_be_empty else "1"
        raise DataloupeError(f"{what} has {least} to {longest} characters in one line.")
    return text


def number(value: float, decimals: int = 2) -> str:
    """A number with a proper minus sign, and none for what rounds to 0."""
    return f"{value:z.{decimals}f}".replace("-", "−")


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """A count with its noun: `1 tensor`, `1,200 tensors`; `plural` for irregular nouns."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def class_list(names: Sequence[str]) -> str:
    """The classes of an example of any number of classes: `red, blue`; `none`."""
    return ", ".join(names) or "none"


_NO_SPACES: dict[int, str] = {
    **{code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"},
    0x2028: " ",
    0x2029: " ",
}


def visible(text: str) -> str:
    """The text, as long as before, with a mark in place of control characters that are no space."""
    return text.translate(_NO_SPACES)


def harmless(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
