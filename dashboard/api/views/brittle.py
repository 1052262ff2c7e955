"""Brittle: predictions that depend on a few training examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from dashboard.api.answer import Answer, Rows
from dashboard.api.examples import Predicted, predicted_fields
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, Range, is_a, maybe, number, within
from dashboard.api.pages import page_of
from dashboard.api.query import Query, refuse
from dashboard.read.studies import examples
from dashboard.read.supports import brittle, matching, read_query, supports
from engine.applications.brittle.table import standing
from engine.store.errors import StoreError, UnknownName
from engine.store.quantities import CHANGE, FLIP, LOGIT_GAP, SHARE
from engine.study.calibration_advice import calibration_advice
from engine.study.capabilities import require
from engine.study.models import has_predictions
from engine.study.names import resolve_row

PER_PAGE = 60
"""As many as on the page."""


@dataclass(frozen=True, kw_only=True)
class Brittle(Predicted):
    """A prediction that is predicted to flip when a few training examples are removed.

    Attributes:
        other: The class that it would become.
        data_support: Size of the smallest removal that is predicted to flip it.
        removal_rows, removal_ids: Those training examples, strongest first.
        logit_gap: Logit of the true label minus the largest other, over the checkpoints.
        logit_gap_after: The same, predicted without these training examples.
        flip_probability: That models retrained without them together predict another class.
        status: `predicted`, `verified` or `refuted` by retraining.
        flip_rate: Share of retrained models that flip; null if it was not verified.
        predicted_change, actual_change: Of the model output, in the retrained models; null if it
            was not verified.
        models: Number of retrained models; null if it was not verified.
        verification: Id of the verification; null without one.
        data_issues: Rules of data issues that the example breaks.
        tags, notes: What people wrote about it.
    """

    other: str
    data_support: int
    removal_rows: list[int]
    removal_ids: list[str]
    logit_gap: Annotated[Range, is_a(LOGIT_GAP)]
    logit_gap_after: Annotated[Range, is_a(LOGIT_GAP)]
    flip_probability: Annotated[Number, is_a(FLIP)]
    status: str
    flip_rate: Annotated[Range | None, is_a(SHARE)]
    predicted_change: Annotated[Number | None, is_a(CHANGE)]
    actual_change: Annotated[Number | None, is_a(CHANGE)]
    models: int | None
    verification: str | None
    data_issues: list[str]
    tags: list[str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class BrittleList(Head):
    """Predictions that are predicted to flip, smallest data support first.

    Attributes:
        at_most: The largest number of training examples that is removed.
        probability: The least probability of a flip in the list.
        predicted_to_flip: How many predictions are, before any filter, without the refuted ones.
        refuted: How many retraining refuted.
        of: How many predictions there are.
        matching: How many pass the filters.
        page: Which part of them this is, from 1; null for all of them.
        pages: How many parts there are.
        note: Why no flip can be predicted; empty if it can.
        predictions: Those of this part.
    """

    at_most: int
    probability: Annotated[Number, is_a(FLIP)]
    predicted_to_flip: int
    refuted: int
    of: int
    matching: int
    page: int | None
    pages: int
    note: str
    predictions: list[Brittle] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The brittle predictions that pass the filters."""
    study, algorithm, method = query.study, query.algorithm, query.method
    require(study, "outcomes", "Brittle predictions")
    if not has_predictions(study, algorithm):
        raise StoreError(
            f"{algorithm} has no predictions yet. `dataloupe build {study.root}` makes them."
        )
    asked = read_query(study, query.given)
    refuse(asked.problems)
    found = supports(study, algorithm, method, asked.at_most, asked.likely)
    arrow, table = brittle(study, found)
    places = matching(table, asked)
    if "test" in query.given:
        row = resolve_row(study, "test", query.given["test"])
        places = places[table["row"].to_numpy()[places] == row]
        if not len(places):
            raise UnknownName(
                f"Test example {query.given['test']!r} is not among the predictions listed here."
            )
    part = page_of(query, places, PER_PAGE)
    refuted = standing(arrow)["refuted"]
    content = BrittleList(
        **head(query),
        at_most=found.at_most,
        probability=number(FLIP, found.probability, method=method),
        predicted_to_flip=len(table) - refuted,
        refuted=refuted,
        of=len(found.logit_gap),
        matching=len(places),
        page=part.page,
        pages=part.pages,
        note=""
        if found.calibrated
        else f"Scores of {method} are not calibrated, so no flip can be predicted. "
        + calibration_advice(study, algorithm, method),
    )
    return Answer(
        content, Rows("predictions", _entries(query, arrow, part.rows), part.page is None)
    )


def _entries(query: Query, table: Any, places: np.ndarray) -> Iterator[Brittle]:
    study, output, method = query.study, query.study.dataset.output, query.method
    tests = examples(study, "test", query.algorithm)
    rows = table["row"].to_numpy()[places]
    for place, fields in zip(places.tolist(), predicted_fields(study, tests, rows), strict=True):
        (one,) = table.slice(place, 1).to_pylist()

        def gap(name: str, found: dict[str, Any] = one) -> Range:
            return within(LOGIT_GAP, *(found[f"{name}{end}"] for end in ("", "_low", "_high")))

        rate = one["flip_rate"]
        yield Brittle(
            **fields,
            other=one["other"],
            data_support=one["support"],
            removal_rows=one["removal_rows"],
            removal_ids=one["removal_ids"],
            logit_gap=gap("logit_gap"),
            logit_gap_after=gap("logit_gap_after"),
            flip_probability=number(FLIP, one["flip_probability"], method=method),
            status=one["status"],
            flip_rate=None
            if rate is None
            else within(SHARE, rate, one["flip_rate_low"], one["flip_rate_high"]),
            predicted_change=maybe(CHANGE, one["margin_change_predicted"], output, method),
            actual_change=maybe(CHANGE, one["margin_change"], output),
            models=one["seeds"],
            verification=one["verification"],
            data_issues=one["data_issues"],
            tags=one["tags"],
            notes=one["notes"],
        )
