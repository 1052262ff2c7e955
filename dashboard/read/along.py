"""Influence over several outputs, asked of the worker that holds the models, and kept."""

from __future__ import annotations

import streamlit as st

from dashboard.read.live_queries import in_explainer
from engine.applications.along import Along, AlongQuery, answer
from engine.applications.live import live_stamps
from engine.store.cache import Stamps
from engine.study.reader import StudyReader


def influence_along(study: StudyReader, query: AlongQuery, who: str) -> Along:
    """As `engine.applications.along.answer`.

    Raises:
        DataloupeError: The study keeps nothing for live queries, a limit is exceeded, or the
            worker is busy.
    """
    return _along(query, live_stamps(study, query.algorithm), who)


@st.cache_resource(max_entries=64, show_spinner=False)
def _along(query: AlongQuery, stamps: Stamps, _who: str) -> Along:
    return in_explainer(answer, query, _who)
