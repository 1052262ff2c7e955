"""Find an example by the words of its text, where a page asks which one to show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from dashboard.location import keep
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.text.text_filters import HOW
from dashboard.read.studies import Examples
from dashboard.slice_parameters import LONGEST_SEARCH
from engine.store.layout import Split
from engine.study.reader import StudyReader

PARAMETER = "find"
"""URL parameter: the words."""
MOST = 48
SIDE = 112


def find_text(
    study: StudyReader,
    split: Split,
    examples: Examples,
    cards: Callable[[np.ndarray], list[Card]],
    on_open: Callable[[int], None],
) -> bool:
    """A search field and the texts that match; whether something was searched for.

    Args:
        examples: All of the split.
        cards: Makes the cards of some rows.
        on_open: Called with the row of a clicked card.
    """
    if not examples.has_texts:
        return False
    words = st.query_params.get(PARAMETER, "").strip()[:LONGEST_SEARCH]
    st.session_state[PARAMETER] = words
    kind = "test" if split == "test" else "training"
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.text_input(
            f"Search {kind} texts",
            placeholder='words, "a phrase", begin*',
            key=PARAMETER,
            max_chars=LONGEST_SEARCH,
            on_change=keep,
            args=(PARAMETER, ""),
            help=HOW,
            width=420,
        )
    if not words:
        return False
    rows = np.flatnonzero(examples.texts.matching(words))
    first = rows[:MOST]
    number = f"{len(rows):,} {kind} text{'' if len(rows) == 1 else 's'}"
    more = f"; the first {len(first):,} are shown" if len(first) < len(rows) else ""
    group = Group(
        f"Texts with {words}",
        cards(first),
        title="Matching texts",
        words=f"{number} match{'es' if len(rows) == 1 else ''}{more}.",
        empty=f"No {kind} text has all of these words.",
    )
    gallery(study, split, [group], SIDE, "found", on_open)
    return True
