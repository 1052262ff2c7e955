"""Does the product hold against what people bring, strangers, and broken disks?

python -m benchmarks.robustness --json [--save]

Each part is a file of its own with a function `measure`, and runs alone, too.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from benchmarks import (
    robustness_bit_flips,
    robustness_code,
    robustness_inputs,
    robustness_kills,
    robustness_server,
)
from benchmarks._report import log, report

PARTS: Final[tuple[ModuleType, ...]] = (
    robustness_bit_flips,
    robustness_code,
    robustness_server,
    robustness_kills,
    robustness_inputs,
)
"""Modules with a function `measure() -> dict[str, Any]`."""


def measure() -> dict[str, Any]:
    """The results of all parts."""
    found: dict[str, Any] = {}
    for part in PARTS:
        log(part.__name__.rpartition(".")[2])
        found |= part.measure()
    return found


if __name__ == "__main__":
    report("robustness", measure, __doc__ or "")
