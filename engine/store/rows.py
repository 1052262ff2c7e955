"""Rows by number: cut into ranges, and sampled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def ranges(rows: range, step: int) -> Iterator[range]:
    """Cut a range into consecutive ranges of at most `step` rows."""
    return (
        range(first, min(first + step, rows.stop)) for first in range(rows.start, rows.stop, step)
    )


def evenly_spread(n: int, most: int) -> np.ndarray:
    """A fixed sample of at most `most` of `n` rows, first and last included: ascending int64."""
    return np.unique(np.linspace(0, n - 1, most).astype(np.int64))
