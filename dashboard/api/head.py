"""What every answer begins with: whose numbers they are, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from dashboard.api.numbers import Number, Range, is_a, maybe, within
from dashboard.api.query import Query
from dashboard.read.studies import badge
from engine.store.quantities import LDS, SHARE, SLOPE
from engine.store.records import Badge
from engine.study.methods import read_quality
from engine.study.reader import StudyReader


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How scores were computed and how good they are.

    Attributes:
        text: All of it in one line, as the terminal prints it.
        calibrated: Whether scores can be read as changes of the model output; if not, only their
            order within one prediction has a meaning.
        better_than_chance: Whether the whole interval of the LDS is above 0; null if not measured.
        lds: Linear datamodeling score on held-out subset runs; null if not measured.
        noise_ceiling: The LDS of perfect predictions; null if unknown.
        slope: Change of the output for a score of 1; null while scores are uncalibrated.
        explained: Share of the outputs' variance that calibrated scores explain (R²).
        method: Name of the method for people.
        reason: Why the scores were computed this way, or where they come from.
        checkpoints: Number of models attributed; null if unknown.
        subset_runs: Number of subset runs that the scores were fitted on.
        solver: How TRAK was computed; null for other scores.
    """

    text: str
    calibrated: bool
    better_than_chance: bool | None
    lds: Annotated[Range | None, is_a(LDS)]
    noise_ceiling: Annotated[Range | None, is_a(LDS)]
    slope: Annotated[Range | None, is_a(SLOPE)]
    explained: Annotated[Number | None, is_a(SHARE)]
    method: str
    reason: str
    checkpoints: int | None
    subset_runs: int | None
    solver: str | None


@dataclass(frozen=True, kw_only=True)
class Head:
    """What every answer begins with.

    Attributes:
        study: Name of the study.
        data_fingerprint: Of the data; null before they are read.
        algorithm: The learning algorithm.
        method: Attribution method of its scores; null while there are none.
        output: Name of the model output that the answer is about, such as `margin`; null before
            the data are read.
        trust: How far these scores can be trusted; null while there are none.
    """

    study: str
    data_fingerprint: str | None
    algorithm: str
    method: str | None
    output: str | None
    trust: Trust | None


def head(query: Query) -> dict[str, Any]:
    """The fields of `Head` for the algorithm and method that were asked for.

    Raises as `Query.location`.
    """
    return head_of(query.study, query.algorithm, query.location.method)


def head_of(study: StudyReader, algorithm: str, method: str | None) -> dict[str, Any]:
    """The fields of `Head`, at any time of a build.

    Args:
        method: None if there are no scores yet.
    """
    dataset = study.dataset if study.has_data else None
    return {
        "study": study.spec.name,
        "data_fingerprint": None if dataset is None else dataset.fingerprint,
        "algorithm": algorithm,
        "method": method,
        "output": None if dataset is None else dataset.output,
        "trust": None
        if method is None
        else trust(study, algorithm, method, badge(study, algorithm, method)),
    }


def trust(study: StudyReader, algorithm: str, method: str, found: Badge) -> Trust:
    """A badge as an answer holds it."""
    quality = read_quality(study, algorithm)
    known = None if quality is None else quality.methods.get(method)
    of = found.output
    return Trust(
        text=str(found),
        calibrated=found.calibrated,
        better_than_chance=None if known is None else known.beats_chance,
        lds=_range(LDS, found.lds, found.lds_low, found.lds_high, of, method),
        noise_ceiling=_range(LDS, found.ceiling, found.ceiling_low, found.ceiling_high, of, None),
        slope=_range(SLOPE, found.slope, found.slope_low, found.slope_high, of, method),
        explained=maybe(SHARE, found.r_squared, method=method),
        method=found.method,
        reason=found.reason,
        checkpoints=found.checkpoints,
        subset_runs=found.runs,
        solver=found.solver,
    )


def _range(
    quantity: Any,
    mean: float | None,
    low: float | None,
    high: float | None,
    output: str,
    method: str | None,
) -> Range | None:
    return None if mean is None else within(quantity, mean, low, high, output, method)
