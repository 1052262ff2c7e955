"""Filters of texts by their words and their length; their values are in the URL."""

from __future__ import annotations

import streamlit as st

from dashboard.location import Location, choose, keep
from dashboard.slice_parameters import LONGEST_SEARCH, MOST_WORDS, length_text

HOW = (
    "All of these words, in any order, ignoring case and accents. Quotes keep words together, as "
    'in "main street"; a star stands for the rest of a word, as in begin*.'
)


def words_filter(location: Location, label: str) -> None:
    """A field for words that the texts contain."""
    st.session_state["text"] = location.slice.text or ""
    st.text_input(
        label,
        placeholder='words, "a phrase", begin*',
        key="text",
        max_chars=LONGEST_SEARCH,
        on_change=keep,
        args=("text", "", ("page",)),
        help=HOW,
        width=290,
    )


def length_filter(location: Location) -> None:
    """Fields for the fewest and the most words of a text."""
    ends = location.slice.length or (None, None)
    keys = "fewest", "most"

    def changed() -> None:
        fewest, most = (st.session_state[key] for key in keys)
        if fewest is not None and most is not None and fewest > most:
            fewest, most = most, fewest
        choose(length=length_text((fewest, most)), page=None)

    for key, end, label in zip(keys, ends, ("Fewest words", "Most words"), strict=True):
        st.session_state[key] = end
        st.number_input(
            label,
            min_value=0,
            max_value=MOST_WORDS,
            value=None,
            step=1,
            placeholder="Any",
            key=key,
            on_change=changed,
            width=130,
        )
