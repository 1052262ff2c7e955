"""One page of a long list, or all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dashboard.api.query import Query
from dashboard.location import LARGE, SMALL

PER_PAGE = {LARGE: 120, SMALL: 960}
"""Examples of one page of the test set, by the size of their thumbnails."""


@dataclass(frozen=True)
class Part:
    """A part of a list.

    Attributes:
        page: From 1; None for the whole list.
        pages: How many there are, at least 1.
    """

    rows: np.ndarray
    page: int | None
    pages: int


def page_of(query: Query, rows: np.ndarray) -> Part:
    """The part of a list that was asked for, with as many entries as on the page."""
    if query.everything:
        return Part(rows, None, 1)
    per_page = PER_PAGE[query.location.size]
    pages = max(1, -(-len(rows) // per_page))
    page = query.number("page", 1, pages)
    return Part(rows[(page - 1) * per_page : page * per_page], page, pages)
