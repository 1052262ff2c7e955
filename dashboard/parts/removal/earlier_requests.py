"""Earlier requests about sets of training examples: buttons that open each again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from dashboard.parts.layout.blocks import aside
from dashboard.parts.removal.removal_set_form import open_set
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet

LISTED = 20
T = TypeVar("T")


@dataclass(frozen=True)
class EarlierRequest:
    """One earlier request.

    Attributes:
        id: Of its result.
        rows: The training rows it is about.
        words: Its date and its result.
        chosen: How its rows were chosen: the description of the set when it is opened again.
    """

    id: str
    rows: list[int]
    words: str
    chosen: str


def earlier_requests(
    study: StudyReader,
    kept: list[T],
    describe: Callable[[T], EarlierRequest],
    here: RemovalSet | None,
) -> None:
    """List the latest requests, newest first.

    Args:
        kept: All results, oldest first.
        describe: Called only for those that are listed.
        here: The set the page shows.
    """
    rows = None if here is None else here.rows.tolist()
    for one in map(describe, kept[::-1][:LISTED]):
        shown = " · shown above" if one.rows == rows else ""
        args = (study, one.rows, one.chosen)
        st.button(one.words + shown, key=f"open_{one.id}", on_click=open_set, args=args)
    if len(kept) > LISTED:
        aside(f"The newest {LISTED} of {len(kept):,}.")
