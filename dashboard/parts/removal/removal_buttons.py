"""Buttons that save training examples as a set and open it on What if or Unlearn."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.location import UNLEARN, WHAT_IF, Location
from dashboard.parts.layout.messages import warning
from dashboard.permissions import gate
from dashboard.writes import keep_set
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader


def removal_buttons(
    study: StudyReader, rows: np.ndarray, words: str, location: Location, what_if: str
) -> None:
    """Show buttons that predict the effect of removing these training rows, or forget them.

    Args:
        words: How the rows were chosen.
        what_if: Label of the button that opens What if.
    """
    targets = (
        (what_if, ":material/content_cut:", "what_if", WHAT_IF),
        ("Forget these", ":material/ink_eraser:", "forget", UNLEARN),
    )
    with st.container(horizontal=True, width="content"):
        clicked = [
            page
            for text, icon, key, page in targets
            if st.button(text, icon=icon, key=key, **gate("write", disabled=not len(rows)))
        ]
    if clicked:
        try:
            kept = keep_set(study, rows.tolist(), words)
        except DataloupeError as error:
            warning([str(error)])
            return
        st.switch_page(clicked[0], query_params=location.parameters(set=kept.key))
