"""How far scores can be trusted: what was measured on subset runs that no choice was made on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float


def share(found: int, of: int) -> Measured:
    """A share with its 95 % interval by Wilson (1927), which holds for few trials too.

    Raises:
        ValueError: There are no trials, or more were found than there are.
    """
    if not 0 <= found <= of or of == 0:
        raise ValueError(f"{found} of {of} is no share")
    z, mean = TWO_SIDED_95, found / of
    middle = (mean + z * z / (2 * of)) / (1 + z * z / of)
    reach = z * math.sqrt(mean * (1 - mean) / of + (z / (2 * of)) ** 2) / (1 + z * z / of)
    # At the ends rounding would put the interval beside the share itself.
    return Measured(mean, min(mean, middle - reach), max(mean, middle + reach))


@dataclass(frozen=True)
class Calibration:
    """Actual change of the margin for a predicted change of 1, over the test runs.

    Attributes:
        r_squared: Share of the variance of the outputs, each test example's mean taken out, that
            the calibrated prediction explains.
    """

    slope: Measured
    r_squared: float


@dataclass(frozen=True)
class MethodQuality:
    """What was measured of one method.

    Attributes:
        title: Its name for people.
        settings: How it was computed, in a few words.
        baseline: Whether it is there to compare with only, and cannot be looked at.
        lds: On the test runs.
        validation_lds: On the validation runs, fitted without them: what the choice between
            methods goes by; None for scores that were made elsewhere.
        by_class: LDS over the test examples of each class.
        calibration: None where the scores predict nothing.
        coverage: Share of the test outcomes inside the method's own 90 % intervals; None for a
            method that has none.
    """

    title: str
    settings: str
    baseline: bool
    lds: Measured
    validation_lds: float | None
    by_class: dict[str, Measured]
    calibration: Calibration | None
    coverage: float | None = None

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval of the LDS lies above that of shuffled scores, 0."""
        return self.lds.low > 0

    @property
    def units(self) -> Calibration | None:
        """What turns a score into a change of the margin; None where nothing should."""
        found = self.calibration
        if found is None or not self.beats_chance:
            return None
        return found if found.slope.low > 0 and found.r_squared > 0 else None


@dataclass(frozen=True)
class Point:
    """LDS on the test runs of one method with so many checkpoints or runs."""

    method: str
    n: int
    lds: Measured


@dataclass(frozen=True)
class Quality:
    """What `quality.json` says.

    Attributes:
        masks: Of the run bank: `fit`, `validation` and `test`.
        seeds: Runs of each mask.
        alpha: Share of the training examples in a mask.
        output: Name of the output that was predicted, such as `margin`.
        preferred: The method that validation prefers: the default everywhere.
        methods: By name, best LDS first.
        checkpoints: LDS by number of checkpoints.
        runs: LDS by number of runs fitted on.
        tuning: Settings of TRAK that were tried on validation runs: `damping`, `tempering`,
            `soft_threshold`, `lds`; empty where study.toml fixes them.
    """

    masks: dict[str, int]
    seeds: int
    alpha: float
    output: str
    preferred: str
    methods: dict[str, MethodQuality]
    checkpoints: list[Point]
    runs: list[Point]
    tuning: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Quality:
        """The reverse of `to_dict`."""
        return cls(
            **{
                **content,
                "methods": {name: _method(found) for name, found in content["methods"].items()},
                "checkpoints": [_point(point) for point in content["checkpoints"]],
                "runs": [_point(point) for point in content["runs"]],
            }
        )


def _method(content: Mapping[str, Any]) -> MethodQuality:
    calibration = content["calibration"]
    if calibration is not None:
        calibration = Calibration(Measured(**calibration["slope"]), calibration["r_squared"])
    by_class = {label: Measured(**found) for label, found in content["by_class"].items()}
    lds = Measured(**content["lds"])
    changed = {"lds": lds, "by_class": by_class, "calibration": calibration}
    return MethodQuality(**{**content, **changed})


def _point(content: Mapping[str, Any]) -> Point:
    return Point(content["method"], content["n"], Measured(**content["lds"]))
