"""The size of thumbnails in a gallery, and how many fit on a page."""

from __future__ import annotations

import streamlit as st

from dashboard.location import LARGE, SIZES, SMALL, choose

PER_PAGE = {LARGE: 120, SMALL: 960}
SIDE = {LARGE: 112, SMALL: 56}


def size_control(size: str, first: int) -> None:
    """Control for the thumbnail size; the first example on the page stays on it."""

    def changed() -> None:
        chosen = st.session_state["size"]
        page = first // PER_PAGE[chosen] + 1
        choose(size=chosen if chosen != LARGE else None, page=page if page > 1 else None)

    st.session_state["size"] = size
    st.segmented_control(
        "Thumbnails",
        list(SIZES),
        format_func=SIZES.__getitem__,
        key="size",
        required=True,
        on_change=changed,
        label_visibility="collapsed",
    )
