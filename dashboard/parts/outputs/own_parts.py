"""What a person gives of an example of their own: a picture, a text, or both.

The session holds it until it is removed or the tab is closed, so that it is still there after a
visit to a training example.
"""

from __future__ import annotations

import streamlit as st

from dashboard.location import go
from dashboard.parts.controls.uploader import uploader
from dashboard.read.live_queries import MEGABYTES
from dashboard.server.uploaded_files import content_of
from engine.applications.live import LONGEST_TEXT
from engine.data.pictures import SUFFIXES
from engine.store.records import View
from engine.study.reader import StudyReader
from engine.tasks import Given

GIVEN = "live_given"
"""Key of what is held: a mapping of parts, never empty."""
ANSWER = ("live_key", "live_answer", "live_completed_by")
"""Keys of the answer about it."""


def read_given(study: StudyReader) -> Given:
    """Show the controls that take the parts of an example, and return what was given."""
    given: dict[View, bytes | str] = dict(st.session_state.get(GIVEN, {}))
    views = study.dataset.views
    if "picture" in views:
        file = uploader(
            "Your picture",
            key="own_picture",
            megabytes=MEGABYTES,
            type=sorted(suffix.removeprefix(".") for suffix in SUFFIXES),
            on_change=_take_picture,
        )
        if file is None and "picture" in given:
            st.button("Remove picture", icon=":material/close:", on_click=_keep, key="forget")
    if "text" in views:
        alone = len(views) == 1
        st.session_state["own_text"] = given.get("text", "")
        st.text_area(
            "Your text" if alone else "Your caption",
            key="own_text",
            max_chars=LONGEST_TEXT,
            height=160 if alone else 80,
            on_change=_take_text,
        )
    return given


def _take_picture() -> None:
    """Callback: hold the chosen picture; forget the last answer."""
    file = st.session_state["own_picture"]
    _keep("picture", None if file is None or file.size > MEGABYTES * 2**20 else content_of(file))


def _take_text() -> None:
    """Callback: hold the text; forget the last answer."""
    _keep("text", st.session_state["own_text"].strip() or None)


def _keep(part: View = "picture", content: bytes | str | None = None) -> None:
    """Hold a part, or nothing of it if there is no content; forget the last answer."""
    given = {view: one for view, one in st.session_state.get(GIVEN, {}).items() if view != part}
    if content is not None:
        given[part] = content
    for name in (GIVEN, *ANSWER):
        st.session_state.pop(name, None)
    if given:
        st.session_state[GIVEN] = given
    go(output=None)
