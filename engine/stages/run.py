"""What every stage of a build is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.study import Progress, Study


@dataclass(frozen=True)
class Run:
    """One call of `build`.

    Attributes:
        device: `cpu` or `cuda`.
        workers: Processes that work side by side, one thread each; 0 works in this process.
        report: Called after each finished piece of work.
    """

    study: Study
    device: str
    workers: int
    report: Callable[[Progress], None]
