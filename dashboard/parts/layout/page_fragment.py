"""A part of a page that reruns alone when one of its own controls is used."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.location import Location, read_location
from dashboard.parts.layout.messages import notice
from dashboard.read.studies import open_study
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader


def part(location: Location, draw: Callable[[StudyReader, Location], None]) -> None:
    """Draw the part, and rerun only it when one of its controls is used.

    Args:
        location: Of the page. If a click changes more of it than the part shows, the whole page
            reruns.
        draw: Called with the current study and location.
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
