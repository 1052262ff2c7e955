"""A part of a page that is painted anew by itself when one of its own controls is used."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.location import Location, read_location
from dashboard.parts.layout.messages import notice
from dashboard.read.studies import open_study
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader


def part(location: Location, draw: Callable[[StudyReader, Location], None]) -> None:
    """Draw it, and only it whenever something in it is clicked.

    Args:
        location: Of the page. Where a click changed more of it than a part may, the page is
            painted anew.
        draw: Called with the study and the location as they are then.
    """

    @st.fragment
    def paint() -> None:
        try:
            study = open_study()
            here = read_location(study)
            if not here.is_on_page_of(location):
                st.rerun()
            draw(study, here)
        except DataloupeError as error:
            notice("This study cannot be shown as it is", str(error), kind="error")

    paint()
