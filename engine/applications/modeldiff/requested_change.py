"""Check what a person asks of a transformation, of pictures or of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.store.errors import DataloupeError


def checked_options(
    name: str, known: Mapping[str, Any], intensity: float, options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """All options of a transformation: those that were given, and defaults for the others.

    Args:
        name: Of the transformation, for messages.
        known: Its options and their defaults.

    Raises:
        DataloupeError: No such option, or an intensity outside 0 to 1.
    """
    if not 0 <= intensity <= 1:
        raise DataloupeError(f"An intensity must be from 0 to 1, not {intensity}.")
    given = dict(options or {})
    if unknown := sorted(set(given) - set(known)):
        takes = ", ".join(known) or "none"
        raise DataloupeError(f"{name!r} has no option {unknown[0]!r}; it takes {takes}.")
    return {**known, **given}
