"""A segmented control whose value is in the URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import streamlit as st

from dashboard.location import keep


def choice(
    title: str,
    words: Mapping[str, str],
    chosen: str,
    name: str,
    default: str,
    resets: tuple[str, ...] = (),
    label_visibility: Literal["visible", "collapsed"] = "visible",
) -> None:
    """Show the control.

    Args:
        words: Value → text.
        chosen: The current value in the URL.
        name: Of the URL parameter, and the widget's key.
        default: The value that the URL leaves out.
        resets: Parameters that no longer apply after a change.
    """
    st.session_state[name] = chosen
    st.segmented_control(
        title,
        list(words),
        format_func=words.__getitem__,
        key=name,
        required=True,
        on_change=keep,
        args=(name, default, resets),
        label_visibility=label_visibility,
    )
