"""One of a few, side by side; what is chosen is in the URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import streamlit as st

from dashboard.location import keep


def choice(
    label: str,
    words: Mapping[str, str],
    chosen: str,
    name: str,
    default: str,
    resets: tuple[str, ...] = (),
    label_visibility: Literal["visible", "collapsed"] = "visible",
) -> None:
    """Show it.

    Args:
        words: Value → what is read.
        chosen: The value that the URL says now.
        name: Of the URL's parameter, and the widget's key.
        default: The value that the URL leaves out.
        resets: Parameters that another choice makes meaningless.
    """
    st.session_state[name] = chosen
    st.segmented_control(
        label,
        list(words),
        format_func=words.__getitem__,
        key=name,
        required=True,
        on_change=keep,
        args=(name, default, resets),
        label_visibility=label_visibility,
    )
