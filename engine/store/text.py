"""Names and tags that people type: one line, of limited length."""

from __future__ import annotations

import unicodedata

from engine.store.errors import DataloupeError

_CONTROLS = ("Cc", "Cs", "Zl", "Zp")


def one_line(text: str, longest: int, what: str, may_be_empty: bool = False) -> str:
    """The text in normal form, without surrounding space.

    Args:
        longest: Characters it may have.
        what: It is, as the error begins: `A tag`.

    Raises:
        DataloupeError: Empty, too long, or more than a line.
    """
    text = unicodedata.normalize("NFC", text).strip()
    controls = any(unicodedata.category(character) in _CONTROLS for character in text)
    if len(text) > longest or controls or not (text or may_be_empty):
        least = "up" if may_be_empty else "1"
        raise DataloupeError(f"{what} has {least} to {longest} characters in one line.")
    return text
