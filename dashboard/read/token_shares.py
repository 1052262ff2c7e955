"""Scores split over tokens, asked of the worker that holds the models, and kept."""

from __future__ import annotations

import streamlit as st

from dashboard.read.live_queries import in_explainer
from engine.applications.live import live_stamps
from engine.applications.token_queries import TokenQuery, answer
from engine.applications.token_shares import TokenShares
from engine.store.cache import Stamps
from engine.study.reader import StudyReader


def shares_of(
    study: StudyReader,
    algorithm: str,
    test_row: int,
    training_row: int,
    output: str | None,
    who: str,
) -> TokenShares:
    """The score of one training text for one test text, split over the tokens of both.

    Args:
        output: Name of the output that the score is about; None: the one whose scores are stored.

    Raises:
        DataloupeError: The study keeps nothing for live queries, a limit is exceeded, or the
            worker is busy.
    """
    query = TokenQuery(study.root, algorithm, test_row, training_row, output)
    return _shares(query, live_stamps(study, algorithm), who)


@st.cache_resource(max_entries=256, show_spinner=False)
def _shares(query: TokenQuery, stamps: Stamps, _who: str) -> TokenShares:
    return in_explainer(answer, query, _who)
