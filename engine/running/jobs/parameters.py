"""Parameters of a job, completed with defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.store.errors import DataloupeError


def complete(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters, with defaults for the others.

    Raises:
        DataloupeError: The job has no such parameter.
    """
    if unknown := sorted(given.keys() - defaults.keys()):
        raise DataloupeError(f"This job has no parameter {unknown[0]!r}.")
    return {**defaults, **given}
