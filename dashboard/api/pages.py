"""One page of a long list, or all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard.api.head import Head, head
from dashboard.api.query import Query
from dashboard.location import SMALL, Location
from dashboard.parts.controls.thumbnail_size import PER_PAGE

MOST = PER_PAGE[SMALL]
"""The longest part; `page=all` streams the whole list."""


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


def page_of(query: Query, rows: np.ndarray, per_page: int | None = None) -> Part:
    """The part of a list that was asked for.

    Args:
        per_page: Entries of one part unless `per_page` is given; None: as many as the test set has
            at this size of thumbnails.
    """
    if query.everything:
        return Part(rows, None, 1)
    usual = PER_PAGE[query.location.size] if per_page is None else per_page
    size = query.number("per_page", usual, MOST)
    pages = max(1, -(-len(rows) // size))
    page = query.number("page", 1, pages)
    return Part(rows[(page - 1) * size : page * size], page, pages)


@dataclass(frozen=True, kw_only=True)
class Sliced(Head):
    """A part of the examples of a slice.

    Attributes:
        slice: The filters and the order, as the address has them.
        matching: How many examples pass the filters.
        page: Which part of them this is, from 1; null for all of them.
        pages: How many parts there are.
    """

    slice: dict[str, str]
    matching: int
    page: int | None
    pages: int


def sliced(query: Query, location: Location, rows: np.ndarray, part: Part) -> dict[str, Any]:
    """The fields of `Sliced`, for a part of the rows that pass the filters."""
    return {
        **head(query),
        "slice": location.slice.parameters(),
        "matching": len(rows),
        "page": part.page,
        "pages": part.pages,
    }
