"""Scores that take a while, of several outputs: they are computed once somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import Location, go
from dashboard.parts.layout.messages import notice
from dashboard.permissions import session
from dashboard.read.along import influence_along
from engine.applications.along import Along, AlongQuery
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

PARAMETER = "over"
"""URL parameter: what is asked for."""
SHOWN = 6
"""Examples of each sign."""


def asked_for(what: str, title: str, label: str, key: str, icon: str) -> bool:
    """Whether `PARAMETER` asks for it, below its title; if not, a button does."""
    st.html(f'<h2 class="dl-heading">{escape(title)}</h2>')
    if st.query_params.get(PARAMETER) == what:
        return True
    st.button(label, key=key, icon=icon, on_click=go, kwargs={PARAMETER: what})
    return False


def strongest_of(sides: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The training rows that are shown, of those that support and that oppose."""
    return tuple(int(one) for rows in sides for one in rows[:SHOWN])


def influence(
    study: StudyReader,
    row: int,
    names: Sequence[str],
    trains: tuple[int, ...],
    here: Location,
    waiting: str,
    failed: str,
) -> Along | None:
    """Scores of some training examples for outputs of a test example; None after an error.

    Args:
        names: Of the outputs.
        waiting: What is shown meanwhile.
        failed: Title of the error.
    """
    try:
        with st.spinner(waiting):
            query = AlongQuery(study.root, here.algorithm, row, tuple(names), trains)
            return influence_along(study, query, session())
    except DataloupeError as error:
        notice(failed, str(error), kind="error")
        return None
