"""Test set: the examples of a slice, in its order."""

from __future__ import annotations

from dataclasses import dataclass, field

from dashboard.api.answer import Answer, Rows
from dashboard.api.examples import Predicted, predicted
from dashboard.api.head import Head, head
from dashboard.api.pages import page_of
from dashboard.api.query import Query
from dashboard.read.studies import examples, slice_rows
from dashboard.slice_parameters import TRAINING_SORTS
from engine.store.errors import DataloupeError


@dataclass(frozen=True, kw_only=True)
class TestSet(Head):
    """Test examples of a slice.

    Attributes:
        slice: The filters and the order, as the address has them.
        matching: How many examples pass the filters.
        page: Which part of them this is, from 1; null for all of them.
        pages: How many parts there are.
        examples: Those of this part.
    """

    slice: dict[str, str]
    matching: int
    page: int | None
    pages: int
    examples: list[Predicted] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The examples that pass the filters."""
    study, location = query.study, query.location
    if location.slice.sort in TRAINING_SORTS:
        raise DataloupeError(f"Test examples cannot be sorted by “{location.slice.sort}”.")
    found = examples(study, "test", location.algorithm)
    rows = slice_rows(study, found, location)
    part = page_of(query, rows)
    content = TestSet(
        **head(query),
        slice=location.slice.parameters(),
        matching=len(rows),
        page=part.page,
        pages=part.pages,
    )
    return Answer(content, Rows("examples", predicted(study, found, part.rows), part.page is None))
