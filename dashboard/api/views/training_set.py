"""Training set: its examples, those with most influence first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dashboard.api.answer import Answer, Rows
from dashboard.api.head import Head, head
from dashboard.api.pages import page_of
from dashboard.api.query import Query
from dashboard.api.total_influence import Weighty, weighty
from dashboard.read.studies import examples, matching, weights

ORDERS = {
    "influence": "Largest total influence first",
    "helpful": "Those that raise model outputs most",
    "harmful": "Those that lower model outputs most",
    "data": "In the order of the data",
}
"""How the training set can be sorted."""
FILTERS = ("label", "group", "id", "text", "length")
"""Filters of the test set that training examples have, too."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet(Head):
    """Training examples that pass the filters.

    Attributes:
        order: One of the orders of the parameter `order`.
        matching: How many examples pass the filters.
        page: Which part of them this is, from 1; null for all of them.
        pages: How many parts there are.
        examples: Those of this part.
    """

    order: str
    matching: int
    page: int | None
    pages: int
    examples: list[Weighty] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """The training examples that pass the filters, with their total influence."""
    study, location, method = query.study, query.location, query.method
    order = query.one_of("order", ORDERS, "influence")
    training = examples(study, "train", location.algorithm)
    filters = {name: one for name, one in location.slice.filters().items() if name in FILTERS}
    rows = matching(training, filters)
    weight = weights(study, location.algorithm, method)
    keys = {
        "influence": -weight.total,
        "helpful": -weight.support,
        "harmful": weight.oppose,
        "data": np.zeros(len(weight.total)),
    }[order]
    part = page_of(query, rows[np.argsort(keys[rows], kind="stable")])
    content = TrainingSet(
        **head(query), order=order, matching=len(rows), page=part.page, pages=part.pages
    )
    entries = weighty(study, training, part.rows, weight, method)
    return Answer(content, Rows("examples", entries, part.page is None))
