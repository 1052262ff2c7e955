"""Quality: how far the scores of every method can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dashboard.api.answer import Answer
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, Range, is_a, maybe, measured, number
from dashboard.api.query import Query
from dashboard.read.studies import lds_of_each
from engine.attribution.evaluation.quality import MethodQuality, Quality
from engine.attribution.evaluation.verdict import ceiling_text, verdict
from engine.store.quantities import LDS, SHARE, SLOPE
from engine.study.measured_quality import require_quality


@dataclass(frozen=True, kw_only=True)
class GroupLds:
    """The LDS over the test examples of one group, such as a class."""

    group: str
    lds: Annotated[Range, is_a(LDS)]


@dataclass(frozen=True, kw_only=True)
class MeasuredMethod:
    """The measurements of one method.

    Attributes:
        name, title: Its name, and that for people.
        settings: How it was computed.
        preferred: Whether it is the default.
        baseline: Whether it is for comparison only.
        better_than_chance: Whether the whole interval of its LDS is above 0.
        lds: On held-out subset runs.
        validation_lds: On the runs that chose the settings; null if they are too few.
        share_of_ceiling: LDS as a share of the noise ceiling; null if that is near 0 or unknown.
        slope: Actual change for a score of 1; null while scores are uncalibrated.
        explained: Share of the outputs' variance that is explained (R²); null as the slope.
        coverage: Share of outcomes inside its 90 % intervals; null without intervals.
        by_group: Worst first.
    """

    name: str
    title: str
    settings: str
    preferred: bool
    baseline: bool
    better_than_chance: bool
    lds: Annotated[Range, is_a(LDS)]
    validation_lds: Annotated[Number | None, is_a(LDS)]
    share_of_ceiling: Annotated[Number | None, is_a(SHARE)]
    slope: Annotated[Range | None, is_a(SLOPE)]
    explained: Annotated[Number | None, is_a(SHARE)]
    coverage: Annotated[Number | None, is_a(SHARE)]
    by_group: list[GroupLds]


@dataclass(frozen=True, kw_only=True)
class Use:
    """A possible use of the scores: `answer` is `yes`, `care` or `no`."""

    what: str
    answer: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Measurements(Head):
    """How far scores can be trusted, measured on models trained on subsets of the data.

    Attributes:
        masks: Number of subsets in each part of the run bank.
        alpha: Share of the training examples in a subset.
        noise_ceiling: The LDS of perfect predictions; null if unknown.
        noise_ceiling_note: The same in words, or why it is unknown.
        methods: Best LDS first.
        grade, summary: The verdict on the method that was asked for; null if it was not measured.
        uses: What its scores can be used for.
        cautions: What else to know, most important first.
    """

    masks: dict[str, int]
    alpha: float
    noise_ceiling: Annotated[Range | None, is_a(LDS)]
    noise_ceiling_note: str
    methods: list[MeasuredMethod]
    grade: str | None
    summary: str | None
    uses: list[Use]
    cautions: list[str]


def answer(query: Query) -> Answer:
    """The measured quality of every method."""
    study, algorithm, method = query.study, query.algorithm, query.method
    quality = require_quality(study, algorithm)
    found = None
    if method in quality.methods:
        found = verdict(quality, method, lds_of_each(study, algorithm, method))
    return Answer(
        Measurements(
            **head(query),
            masks=quality.masks,
            alpha=quality.alpha,
            noise_ceiling=None if quality.ceiling is None else measured(LDS, quality.ceiling),
            noise_ceiling_note=ceiling_text(quality),
            methods=[_method(quality, name, one) for name, one in quality.methods.items()],
            grade=None if found is None else found.grade,
            summary=None if found is None else found.summary,
            uses=[]
            if found is None
            else [Use(what=one.what, answer=one.answer, why=one.why) for one in found.uses],
            cautions=[] if found is None else found.cautions,
        )
    )


def _method(quality: Quality, name: str, one: MethodQuality) -> MeasuredMethod:
    units, output = one.units, quality.output
    return MeasuredMethod(
        name=name,
        title=one.title,
        settings=one.settings,
        preferred=name == quality.preferred,
        baseline=one.baseline,
        better_than_chance=one.beats_chance,
        lds=measured(LDS, one.lds, output, name),
        validation_lds=maybe(LDS, one.validation_lds, output, name),
        share_of_ceiling=maybe(SHARE, quality.share_of_ceiling(name), method=name),
        slope=None if units is None else measured(SLOPE, units.slope, output, name),
        explained=None if units is None else number(SHARE, units.r_squared, method=name),
        coverage=maybe(SHARE, one.coverage, method=name),
        by_group=[
            GroupLds(group=group, lds=measured(LDS, lds, output, name))
            for group, lds in sorted(one.by_group.items(), key=lambda item: item[1].mean)
        ],
    )
