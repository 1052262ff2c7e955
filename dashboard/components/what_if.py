"""The way to What if: a button that keeps some training examples as a set and asks about it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.components.notice import warning
from dashboard.location import WHAT_IF, Location
from engine.errors import DataloupeError
from engine.removal_sets import keep_set
from engine.study import Study


def what_if_button(
    study: Study, rows: np.ndarray, words: str, location: Location, label: str
) -> None:
    """Ask what removing these training rows would do.

    Args:
        words: How the rows were chosen.
    """
    if st.button(label, icon=":material/content_cut:", key="what_if", disabled=not len(rows)):
        try:
            kept = keep_set(study, rows.tolist(), words)
        except DataloupeError as error:
            warning([str(error)])
            return
        st.switch_page(WHAT_IF, query_params=location.parameters(set=kept.key))
