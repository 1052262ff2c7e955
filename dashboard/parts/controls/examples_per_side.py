"""The control of k: how many examples each side shows."""

from __future__ import annotations

import streamlit as st

from dashboard.location import DEFAULT_K, keep


def sides(k: int, largest: int) -> int:
    """Show the control at `k`, or at `largest` if that is less; return the number shown."""
    shown = min(k, largest)
    st.session_state["k"] = shown
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        st.html('<div class="dl-where">Each side</div>', width="content")
        st.number_input(
            "Examples on each side",
            min_value=1,
            max_value=largest,
            key="k",
            on_change=keep,
            args=("k", DEFAULT_K),
            label_visibility="collapsed",
            width=130,
        )
    return shown
