"""Test set: the examples of a slice, in its order."""

from __future__ import annotations

from dataclasses import dataclass, field

from dashboard.api.answer import Answer, Rows
from dashboard.api.examples import Predicted, predicted
from dashboard.api.pages import Sliced, page_of, sliced
from dashboard.api.query import Query
from dashboard.read.studies import examples, slice_rows
from dashboard.slice_parameters import TRAINING_SORTS
from engine.store.errors import DataloupeError


@dataclass(frozen=True, kw_only=True)
class TestSet(Sliced):
    """Test examples of a slice.

    Attributes:
        examples: Those of this part.
    """

    examples: list[Predicted] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The examples that pass the filters."""
    study, location = query.study, query.location
    if location.slice.sort in TRAINING_SORTS:
        raise DataloupeError(f"Test examples cannot be sorted by “{location.slice.sort}”.")
    found = examples(study, "test", location.algorithm)
    rows = slice_rows(study, found, location)
    part = page_of(query, rows)
    content = TestSet(**sliced(query, location, rows, part))
    return Answer(content, Rows("examples", predicted(study, found, part.rows), part.page is None))
