"""Labels: training labels that look wrong, and what was decided about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from dashboard.api.answer import Answer, Rows
from dashboard.api.examples import Predicted, predicted_fields
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, is_a, number
from dashboard.api.pages import page_of
from dashboard.api.query import Query
from dashboard.api.views.training_set import FILTERS
from dashboard.read.curation import curation, decisions
from dashboard.read.studies import examples, matching
from engine.applications.curation.label_suspicion import LabelSuspicion
from engine.store.errors import StoreError
from engine.store.quantities import (
    DISAGREEMENT,
    LABEL_LOG_ODDS,
    LABEL_MARGIN,
    SELF_INFLUENCE,
    SUSPICION,
    Quantity,
)
from engine.study.capabilities import require
from engine.study.reader import StudyReader


@dataclass(frozen=True, kw_only=True)
class Suspect(Predicted):
    """A training example with what speaks against its label.

    Attributes:
        suspicion: Share of the test labels that look less wrong.
        flagged: Whether that is enough to be reviewed.
        log_odds: Of the label, by its margin and its neighbors. They rank: the lowest come first.
        label_margin: By models that did not see the example, if there are any.
        suggested_label: The likeliest other class.
        neighbors_disagree: Null without embeddings.
        self_influence: Null without subset runs.
        decision: `keep`, `relabel` or `remove`; null where none was made.
        new_label: The label of a relabeling.
    """

    suspicion: Annotated[Number, is_a(SUSPICION)]
    flagged: bool
    log_odds: Annotated[Number, is_a(LABEL_LOG_ODDS)]
    label_margin: Annotated[Number, is_a(LABEL_MARGIN)]
    suggested_label: str
    neighbors_disagree: Annotated[Number | None, is_a(DISAGREEMENT)]
    self_influence: Annotated[Number | None, is_a(SELF_INFLUENCE)]
    decision: str | None
    new_label: str | None


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
    labels: list[Suspect] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The labels of the training examples that pass the filters."""
    study, location = query.study, query.location
    require(study, "classes", "Label suspicion")
    found = curation(study, query.algorithm, location.method).suspicion
    if found is None:
        raise StoreError(
            f"{query.algorithm} has no predictions yet. `dataloupe build {study.root}` makes them."
        )
    training = examples(study, "train", query.algorithm)
    filters = {name: one for name, one in location.slice.filters().items() if name in FILTERS}
    inside = np.zeros(len(found.order), bool)
    inside[matching(training, filters)] = True
    rows = found.order[inside[found.order]]
    part = page_of(query, rows)
    content = Labels(
        **head(query),
        words=found.words,
        evidence=found.evidence.words,
        flagged=found.excess.flagged,
        expected=found.excess.expected,
        beyond_chance=found.excess.beyond_chance,
        decided=len(decisions(study)),
        matching=len(rows),
        page=part.page,
        pages=part.pages,
    )
    entries = _entries(study, query.algorithm, found, part.rows)
    return Answer(content, Rows("labels", entries, part.page is None))


def _entries(
    study: StudyReader, algorithm: str, found: LabelSuspicion, rows: np.ndarray
) -> Iterator[Suspect]:
    training, made, output = (
        examples(study, "train", algorithm),
        decisions(study),
        study.dataset.output,
    )

    def known(of: Quantity, values: np.ndarray | None, row: int) -> Number | None:
        return None if values is None or np.isnan(values[row]) else number(of, values[row], output)

    for fields in predicted_fields(study, training, rows):
        row = fields["row"]
        decision = made.get(row)
        extra: dict[str, Any] = {
            "neighbors_disagree": known(DISAGREEMENT, found.disagreement, row),
            "self_influence": known(SELF_INFLUENCE, found.self_influence, row),
        }
        yield Suspect(
            **fields,
            **extra,
            suspicion=number(SUSPICION, found.suspicion[row]),
            flagged=bool(found.flagged[row]),
            log_odds=number(LABEL_LOG_ODDS, found.log_odds[row]),
            label_margin=number(LABEL_MARGIN, found.margin[row]),
            suggested_label=study.dataset.classes[found.suggested[row]],
            decision=None if decision is None else decision.verdict,
            new_label=None if decision is None else decision.label,
        )
