"""The scale of pictures with more than 8 bits a value: measured on the training split and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.data.bit_depth import measure, share_beyond
from engine.data.pictures import has_many_bits, read_values
from engine.store.errors import SpecError
from engine.store.rows import evenly_spread
from engine.tasks import Remarks

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_TO_COMPARE = 1_000
_MUCH_BEYOND = 0.01
"""From this share of test values outside the training values on, the data get a warning."""


def plan_values(
    rows: Dataset, deep: Sequence[int], wanted: tuple[float, float] | Literal["auto"]
) -> dict[str, Any]:
    """How values of more than 8 bits become 8; kept as `values` of the encoding.

    Args:
        rows: The training split.
        deep: Those of its rows that have more than 8 bits a value; not empty for `auto`.
        wanted: The values that become black and white; `auto` measures them.

    Returns:
        `low` and `high`, the values that become black and white; `pictures`, how many training
        pictures have more than 8 bits; `measured`, whether the two are; `flat`, whether outliers
        leave all other values few grays.
    """
    if wanted != "auto":
        low, high = wanted
        if not low < high:
            raise SpecError(f"task.value_range = {[low, high]}: the first must be the smaller.")
        return {"low": low, "high": high, "pictures": len(deep), "measured": False, "flat": False}
    examples = (rows[int(row)] for row in deep)
    found = measure(read_values(one["input"], f"example {one['id']!r}") for one in examples)
    assert found is not None
    low, high = found.low, found.high
    if len(deep) < len(rows) and low >= 0 and high <= 255:
        low, high = 0.0, 255.0  # all have 8 bits, though some are kept in 16
    return {"low": low, "high": high, "pictures": len(deep), "measured": True, "flat": found.flat}


def between(encoding: dict[str, Any]) -> tuple[float, float] | None:
    """The values that become black and white; None if no training picture has more than 8 bits."""
    values = encoding.get("values")
    return None if values is None else (values["low"], values["high"])


def shown(low: float, high: float) -> str:
    """A range of values in words."""
    return f"{low:,.10g} to {high:,.10g}".replace("-", "−")


def remarks(
    rows: Dataset,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    """How pictures of more than 8 bits a value were scaled, and where that may be wrong."""
    scale = between(encoding)
    if scale is None:
        return Remarks([], _unexpected(rows))
    deep = encoding["values"]["pictures"]
    trained = sum(len(shard["label"]) for shard in arrays["train"])
    note = (
        f"Training pictures with more than 8 bits a value: {deep:,} of {trained:,}. Their values "
        f"from {shown(*scale)} became 0 to 255, and so they do in test and new pictures."
    )
    warnings = []
    if encoding["values"]["flat"]:
        warnings.append(
            "Nearly all values of the training pictures lie in a small part of their range, "
            f"{shown(*scale)}, so few of the 256 grays are used. Set value_range under [task] "
            "without the outliers."
        )
    outside, plain = _compared(rows, scale)
    if encoding["values"]["measured"] and (deep < trained or plain):
        warnings.append(
            "Pictures with 8 bits a value and with more are mixed. Those with 8 bits stay as they "
            f"are and the others are scaled from {shown(*scale)}, so their brightness may differ. "
            "Save all with the same number of bits, or set value_range under [task]."
        )
    if outside >= _MUCH_BEYOND:
        warnings.append(
            f"{outside:.0%} of the values of the test pictures are outside {shown(*scale)} and "
            "became black or white. Check that both splits have the same number of bits, or set "
            "value_range under [task]."
        )
    return Remarks([note], warnings)


def _unexpected(rows: Dataset) -> list[str]:
    """A warning if pictures of the test split have more bits than those of the training split."""
    examples = (rows[int(row)] for row in evenly_spread(len(rows), _ROWS_TO_COMPARE))
    if not any(has_many_bits(one["input"], f"example {one['id']!r}") for one in examples):
        return []
    return [
        "Test pictures have more than 8 bits a value, and no training picture has. The upper 8 of "
        "their 16 bits are used. Save all with the same number of bits, or set value_range under "
        "[task]."
    ]


def _compared(rows: Dataset, scale: tuple[float, float]) -> tuple[float, int]:
    """(share of values outside the scale, pictures with 8 bits) in a sample of the test split."""
    outside, plain = [], 0
    for row in evenly_spread(len(rows), _ROWS_TO_COMPARE):
        one = rows[int(row)]
        where = f"example {one['id']!r}"
        if has_many_bits(one["input"], where):
            outside.append(share_beyond(read_values(one["input"], where), *scale))
        else:
            plain += 1
    return float(np.mean(outside)) if outside else 0.0, plain
