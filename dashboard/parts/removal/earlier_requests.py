"""Earlier requests about sets of training examples: buttons that open each again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from dashboard.names import plain, short
from dashboard.parts.layout.blocks import aside
from dashboard.parts.removal.removal_set_form import open_set
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet, kept_sets

LISTED = 20
SAVED = 200
"""The most saved sets that are looked through for names."""
T = TypeVar("T")


@dataclass(frozen=True)
class EarlierRequest:
    """One earlier request.

    Attributes:
        id: Of its result.
        rows: The training rows it is about.
        words: Its date and its result.
        chosen: How its rows were chosen, if no saved set has these rows: the description of the
            set when it is opened again.
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
    # The newest name of a set counts.
    names = {tuple(found.rows.tolist()): found.words for found in kept_sets(study, SAVED)[::-1]}
    for one in map(describe, kept[::-1][:LISTED]):
        name = names.get(tuple(one.rows), one.chosen)
        shown = " · shown above" if one.rows == rows else ""
        args = (study, one.rows, name)
        text = f"{plain(short(name))} · {one.words}{shown}"
        st.button(text, key=f"open_{one.id}", on_click=open_set, args=args)
    if len(kept) > LISTED:
        aside(f"The newest {LISTED} of {len(kept):,}.")
