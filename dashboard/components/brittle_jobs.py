"""Buttons that put verifications into the queue, for one prediction or for the first of a list."""

from __future__ import annotations

import numpy as np
import streamlit as st

from engine.brittle import Supports
from engine.errors import DataloupeError
from engine.jobs.queue import submit
from engine.study import Study

KIND = "brittle"
MOST_AT_ONCE = 200
SEEDS = 5


def verify_button(study: Study, found: Supports, row: int) -> None:
    """Retrain without the removal set of one prediction."""
    st.button(
        "Verify",
        icon=":material/science:",
        key="verify",
        help=f"Retrain {SEEDS} models without these {found.size[row]} training examples",
        on_click=_submit,
        args=(study, found, [row], SEEDS),
    )


def verify_first(study: Study, found: Supports, rows: np.ndarray) -> None:
    """Retrain for the first of the list as it is filtered."""
    most = min(len(rows), MOST_AT_ONCE)
    with st.popover("Verify the first …", icon=":material/science:", width="content"):
        if not most:
            st.html('<p class="dl-aside">None is listed.</p>')
            return
        with st.container(horizontal=True):
            first = st.number_input("Predictions", 1, most, min(10, most), key="first", width=130)
            seeds = st.number_input("Seeds of each", 1, 20, SEEDS, key="seeds", width=130)
        st.html(f'<p class="dl-aside">{first * seeds:,} models are trained at most.</p>')
        st.button(
            "Verify",
            key="verify_first",
            on_click=_submit,
            args=(study, found, [int(row) for row in rows[:first]], int(seeds)),
        )


def _submit(study: Study, found: Supports, rows: list[int], seeds: int) -> None:
    parameters = {
        "tests": rows,
        "seeds": seeds,
        "at_most": found.at_most,
        "algorithm": found.algorithm,
        "method": found.method,
    }
    what = f"test example {rows[0]}" if len(rows) == 1 else f"{len(rows)} predictions"
    try:
        st.session_state["brittle_job"] = submit(study, KIND, parameters, f"Verify {what}")
    except DataloupeError as error:
        st.session_state["brittle_told"] = str(error)
