"""Training set: its examples with all that a curator looks at, in the order of the page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dashboard.api.answer import Answer, Rows
from dashboard.api.curated import Curated, curated
from dashboard.api.pages import Sliced, page_of, sliced
from dashboard.api.query import Query, built
from dashboard.read.curation import ANY, DECIDED, curation, decided_rows, decisions, training_rows
from dashboard.read.studies import examples
from dashboard.slice_parameters import NEED_SCORES, SORTS, can_sort
from engine.store.errors import DataloupeError

SHARED_SORTS = tuple(name for name in SORTS if name not in NEED_SCORES)
"""Orders of the test set that training examples have, too."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet(Sliced):
    """Training examples of a slice.

    Attributes:
        examples: Those of this part.
    """

    examples: list[Curated] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The training examples that pass the filters, with what is known of their labels."""
    study = query.study
    # Rows that are picked individually are those of test examples.
    location = query.location.of_slice(replace(query.location.slice, only=None))
    training = examples(study, "train", location.algorithm)
    method = built(query)[1]
    found, made = curation(study, location.algorithm, method), decisions(study)
    sort = location.slice.sort
    known = {
        *found.orders,
        *(one for one in SHARED_SORTS if can_sort(one, training.columns, False)),
    }
    if sort is not None and sort not in known:
        raise DataloupeError(f"Training examples cannot be sorted by “{sort}” here.")
    wanted = query.one_of("decided", DECIDED, ANY)
    rows = decided_rows(training_rows(study, training, location, found), made, wanted)
    part = page_of(query, rows)
    content = TrainingSet(**sliced(query, location, rows, part))
    entries = curated(study, training, part.rows, found, made, method)
    return Answer(content, Rows("examples", entries, part.page is None))
