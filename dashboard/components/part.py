"""A part of a page that is painted anew by itself when one of its own controls is used."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.components.notice import notice
from engine.errors import DataloupeError


def part(draw: Callable[[], None]) -> None:
    """Draw it, and only it whenever something in it is clicked.

    `draw` must read study and URL itself: what the page read may be old by then.
    """

    @st.fragment
    def paint() -> None:
        try:
            draw()
        except DataloupeError as error:
            notice("This study cannot be shown as it is", str(error), kind="error")

    paint()
