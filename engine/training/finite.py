"""Model outputs that are not finite: which examples have them, and how to say so.

Finite weights do not give finite outputs on every example: two weights of ±3e38 cancel where both
pixels are dark, and overflow elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_FIRST = 3


def not_finite(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether any output of each example is NaN or infinite: bool `[n]`.

    Args:
        outputs: As of `engine.training.outputs.evaluate`: arrays `[n, ...]`.
    """
    finite = [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in outputs.values()]
    bad: np.ndarray = ~np.logical_and.reduce(finite)
    return bad


def count_text(bad: np.ndarray, ids: Sequence[str], kind: str) -> str:
    """Number, share and first ids of some examples: `3 of 60 test examples (5 %), first test-7, …`.

    Args:
        bad: bool `[n]`, with at least one that is true.
        ids: Ids of the n examples.
        kind: What the examples are, such as `test`.
    """
    rows, n = np.flatnonzero(bad), len(bad)
    first = ", ".join(str(ids[int(row)]) for row in rows[:_FIRST])
    of = f"{len(rows):,} of {n:,} {kind} example{'s' * (n != 1)}"
    return f"{of} ({_percent(len(rows), n)}), first {first}"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "less than 0.1 %" if share < 0.1 else f"{share:.3g} %"
