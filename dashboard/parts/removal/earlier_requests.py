"""What was asked before of sets of training examples: buttons that open each again."""

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
class AskedBefore:
    """One of them.

    Attributes:
        id: Of what came of it.
        rows: The training rows that it was about.
        words: When, and what came of it.
        chosen: How its rows are said to have been chosen when it is opened.
    """

    id: str
    rows: list[int]
    words: str
    chosen: str


def asked_before(
    study: StudyReader, kept: list[T], in_words: Callable[[T], AskedBefore], here: RemovalSet | None
) -> None:
    """List the newest, newest first.

    Args:
        kept: All, oldest first.
        in_words: Asked only of those that are listed.
        here: What the page shows.
    """
    rows = None if here is None else here.rows.tolist()
    for one in map(in_words, kept[::-1][:LISTED]):
        shown = " · shown above" if one.rows == rows else ""
        args = (study, one.rows, one.chosen)
        st.button(one.words + shown, key=f"open_{one.id}", on_click=open_set, args=args)
    if len(kept) > LISTED:
        aside(f"The newest {LISTED} of {len(kept):,}.")
