"""Does the product hold against what people bring, strangers, and broken disks?

python -m benchmarks.robustness --json [--save]

Each part is a file of its own with a function `measure`, and runs alone, too.
"""

from __future__ import annotations

from typing import Any

from benchmarks import robustness_inputs, robustness_kills
from benchmarks._report import log, report

PARTS = (robustness_kills, robustness_inputs)
"""To add a part: a module with `measure() -> dict[str, Any]`, imported above."""


def measure() -> dict[str, Any]:
    """The results of all parts."""
    found: dict[str, Any] = {}
    for part in PARTS:
        log(part.__name__.rpartition(".")[2])
        found |= part.measure()
    return found


if __name__ == "__main__":
    report("robustness", measure, __doc__ or "")
