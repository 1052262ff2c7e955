"""Labels: training labels that look wrong, and what was decided about them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dashboard.api.answer import Answer, Rows
from dashboard.api.curated import Curated, curated
from dashboard.api.head import Head, head
from dashboard.api.pages import page_of
from dashboard.api.query import Query
from dashboard.read.curation import ANY, DECIDED, curation, decided_rows, decisions, within
from dashboard.read.studies import examples, matching
from engine.store.errors import StoreError
from engine.study.capabilities import require


@dataclass(frozen=True, kw_only=True)
class Labels(Head):
    """Training labels, most suspicious first.

    Attributes:
        words: What was found, in one or two sentences.
        evidence: What it is based on, and how reliable that is.
        flagged: How many labels look more wrong than nearly all test labels.
        expected: How many would by chance.
        beyond_chance: Whether chance does not explain how many are flagged.
        decided: About how many examples a decision was made.
        matching: How many pass the filters.
        page: Which part of them this is, from 1; null for all of them.
        pages: How many parts there are.
        labels: Those of this part.
    """

    words: str
    evidence: str
    flagged: int
    expected: float
    beyond_chance: bool
    decided: int
    matching: int
    page: int | None
    pages: int
    labels: list[Curated] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The labels of the training examples that pass the filters."""
    study, location = query.study, query.location
    require(study, "classes", "Label suspicion")
    columns, made = curation(study, query.algorithm, location.method), decisions(study)
    found = columns.suspicion
    if found is None:
        raise StoreError(
            f"{query.algorithm} has no predictions yet. `dataloupe build {study.root}` makes them."
        )
    training = examples(study, "train", query.algorithm)
    filters = replace(location.slice, only=None).filters()  # picked rows are test examples
    wanted = query.one_of("decided", DECIDED, ANY)
    rows = decided_rows(within(found.order, matching(training, filters)), made, wanted)
    part = page_of(query, rows)
    content = Labels(
        **head(query),
        words=found.words,
        evidence=found.evidence.words,
        flagged=found.excess.flagged,
        expected=found.excess.expected,
        beyond_chance=found.excess.beyond_chance,
        decided=len(made),
        matching=len(rows),
        page=part.page,
        pages=part.pages,
    )
    entries = curated(study, training, part.rows, columns, made, location.method)
    return Answer(content, Rows("labels", entries, part.page is None))
