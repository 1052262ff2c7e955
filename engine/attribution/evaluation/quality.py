"""How far scores can be trusted: measurements on subset runs that were not used to choose
anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.attribution.evaluation.effect_sizes import EffectSizes

TWO_SIDED_95 = 1.96
CLEAR_CEILING = 0.1
"""Where the noise ceiling's interval begins lower, no LDS is divided by it."""


@dataclass(frozen=True)
class Measured:
    """A measured value with its 95 % interval."""

    mean: float
    low: float
    high: float


def share(found: int, of: int) -> Measured:
    """The share `found` / `of` with its 95 % interval by Wilson (1927), which holds for few trials.

    Raises:
        ValueError: `of` is 0, or `found` is not between 0 and `of`.
    """
    if not 0 <= found <= of or of == 0:
        raise ValueError(f"{found} of {of} is not a share")
    z, mean = TWO_SIDED_95, found / of
    middle = (mean + z * z / (2 * of)) / (1 + z * z / of)
    reach = z * math.sqrt(mean * (1 - mean) / of + (z / (2 * of)) ** 2) / (1 + z * z / of)
    # At 0 and 1, rounding could leave the share outside of its own interval.
    return Measured(mean, min(mean, middle - reach), max(mean, middle + reach))


@dataclass(frozen=True)
class Calibration:
    """The relation of actual to predicted changes of the output, over the test runs.

    Attributes:
        slope: Actual change for a predicted change of 1.
        r_squared: Share of the variance of the outputs within test examples that the calibrated
            prediction explains.
    """

    slope: Measured
    r_squared: float


@dataclass(frozen=True)
class MethodQuality:
    """The measurements of one method.

    Attributes:
        title: Its name for people.
        settings: How it was computed, in a few words.
        baseline: Whether it is for comparison only; the study does not keep its scores.
        lds: On the test runs.
        validation_lds: On the validation runs, cross-fitted (`preference.validation_lds`). The
            preferred method is the simplest one whose value is within a standard error of the
            highest. None for baselines, and where the runs are too few.
        by_group: LDS over the test examples of each group, such as a class.
        calibration: None where the predictions do not vary.
        effects: Sizes of the effects of removals from all the data; None if not calibrated.
        coverage: Share of the test outcomes inside the method's own 90 % intervals; None for a
            method without intervals.
    """

    title: str
    settings: str
    baseline: bool
    lds: Measured
    validation_lds: float | None
    by_group: dict[str, Measured]
    calibration: Calibration | None
    effects: EffectSizes | None = None
    coverage: float | None = None

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval of the LDS is above 0, the LDS of shuffled scores."""
        return self.lds.low > 0

    @property
    def units(self) -> Calibration | None:
        """What turns scores into changes of the output; None where the evidence is too weak."""
        found = self.calibration
        if found is None or not self.beats_chance:
            return None
        return found if found.slope.low > 0 and found.r_squared > 0 else None


@dataclass(frozen=True)
class Point:
    """LDS of one method on the test runs, with n checkpoints or n runs."""

    method: str
    n: int
    lds: Measured


@dataclass(frozen=True)
class Quality:
    """The content of `quality.json`.

    Attributes:
        masks: Number of masks in each part of the run bank: `fit`, `validation` and `test`.
        seeds: Number of runs of each test mask; the lowest where they differ.
        alpha: Share of the training examples in a mask.
        output: Name of the model output, such as `margin`.
        preferred: The default method everywhere; see `preference.prefer`.
        methods: By name, best LDS first.
        checkpoints: LDS by number of checkpoints.
        runs: LDS by number of runs that a method was fitted to.
        tuning: Settings of TRAK that were tried on validation runs: `damping`, `tempering`,
            `soft_threshold`, `lds`; empty where study.toml fixes them.
        ceiling: The LDS that perfect predictions would reach; None where too few test masks have
            two runs (`evaluation.ceiling`).
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
    ceiling: Measured | None = None

    def share_of_ceiling(self, method: str) -> float | None:
        """LDS of a method as a share of the noise ceiling; None where that is near 0 or unknown."""
        if self.ceiling is None or self.ceiling.low < CLEAR_CEILING:
            return None
        return self.methods[method].lds.mean / self.ceiling.mean

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Quality:
        """The reverse of `to_dict`."""
        ceiling = content.get("ceiling")
        return cls(
            **{
                **content,
                "ceiling": None if ceiling is None else Measured(**ceiling),
                "methods": {name: _method(found) for name, found in content["methods"].items()},
                "checkpoints": [_point(point) for point in content["checkpoints"]],
                "runs": [_point(point) for point in content["runs"]],
            }
        )


def _method(content: Mapping[str, Any]) -> MethodQuality:
    calibration = content["calibration"]
    if calibration is not None:
        calibration = Calibration(Measured(**calibration["slope"]), calibration["r_squared"])
    by_group = {label: Measured(**found) for label, found in content["by_group"].items()}
    lds = Measured(**content["lds"])
    changed = {"lds": lds, "by_group": by_group, "calibration": calibration}
    if content.get("effects") is not None:
        changed["effects"] = EffectSizes.from_dict(content["effects"])
    return MethodQuality(**{**content, **changed})


def _point(content: Mapping[str, Any]) -> Point:
    return Point(content["method"], content["n"], Measured(**content["lds"]))
