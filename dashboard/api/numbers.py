"""Numbers of an answer: unrounded, as people read them, and with their quantity and unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from engine.store.quantities import Interval, Quantity


@dataclass(frozen=True, kw_only=True)
class Number:
    """A quantity.

    Attributes:
        value: Unrounded; null if it is not finite.
        text: As pages and the terminal write it.
        quantity: Its name, such as `influence`.
        unit: What a value of 1 is, such as `margin`; null for a number without a unit.
        method: Attribution method that it was computed by; null if it depends on none.
    """

    value: float | None
    text: str
    quantity: str
    unit: str | None
    method: str | None = None


@dataclass(frozen=True, kw_only=True)
class Range(Number):
    """A quantity with its interval, 95 % unless the answer says otherwise.

    Attributes:
        low, high: Ends of the interval; null if it is not known.
        interval: Both ends, as pages and the terminal write them; empty if they are not known.
    """

    low: float | None
    high: float | None
    interval: str


def number(of: Quantity, value: float, output: str = "", method: str | None = None) -> Number:
    """A value of a quantity.

    Args:
        output: Name of the model output that it is about.
        method: The attribution method that it was computed by.
    """
    return Number(value=_finite(value), text=of.text(value), **_about(of, output, method))


def maybe(
    of: Quantity, value: float | None, output: str = "", method: str | None = None
) -> Number | None:
    """`number` of a value that may be missing."""
    return None if value is None else number(of, value, output, method)


def within(
    of: Quantity,
    mean: float,
    low: float | None,
    high: float | None,
    output: str = "",
    method: str | None = None,
) -> Range:
    """A value with the ends of its interval."""
    known = low is not None and high is not None
    return Range(
        value=_finite(mean),
        text=of.text(mean),
        low=None if low is None else _finite(low),
        high=None if high is None else _finite(high),
        interval=of.range(low, high) if low is not None and high is not None and known else "",
        **_about(of, output, method),
    )


def measured(of: Quantity, found: Interval, output: str = "", method: str | None = None) -> Range:
    """A measured value with its interval."""
    return within(of, found.mean, found.low, found.high, output, method)


def measured_json(of: Quantity, found: Mapping[str, float], output: str = "") -> Range:
    """`measured` of what a JSON file of the study holds."""
    return within(of, found["mean"], found["low"], found["high"], output)


def is_a(of: Quantity, words: str = "") -> Any:
    """What the OpenAPI document says of a field with this quantity.

    Args:
        words: What else to say of it.
    """
    unit = of.unit.format("model output") or "no unit"
    name = of.name.format("model output")
    return Field(
        description=f"{name[0].upper()}{name[1:]}; unit: {unit}. {words}".strip(),
        json_schema_extra={"x-quantity": name, "x-unit": unit},
    )


def _about(of: Quantity, output: str, method: str | None) -> dict[str, Any]:
    name, unit = of.name.format(output), of.unit.format(output)
    return {"quantity": name, "unit": unit or None, "method": method}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
