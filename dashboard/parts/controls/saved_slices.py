"""Saved slices: save the current slice, open one, or delete one.

They are stored in the study's folder, so everyone who opens the study shares them.
"""

from __future__ import annotations

from html import escape
from typing import Literal

import streamlit as st

from dashboard.location import Location, go
from dashboard.names import plain
from dashboard.parts.controls.slice_filters import order_titles
from dashboard.permissions import gate
from dashboard.read.columns import output_name
from dashboard.read.studies import Examples, kept_slices, matching
from dashboard.slice_parameters import FORMER, PARAMETERS, Slice, as_far_as_known, read_slice
from dashboard.writes import delete_slice, save_slice
from engine.store.errors import DataloupeError
from engine.study.groups import group_columns
from engine.study.reader import StudyReader
from engine.study.slices import LONGEST_NAME, SavedSlice


def saved(study: StudyReader, location: Location, examples: Examples) -> None:
    """Show a button that opens the saved slices."""
    slices, problems = kept_slices(study)
    with st.popover(f"Saved slices ({len(slices)})", icon=":material/bookmark:", width="content"):
        for one in slices:
            _entry(study, one, examples)
        for problem in problems:
            _message("wrong", problem)
        _form(study, location)


def _entry(study: StudyReader, one: SavedSlice, examples: Examples) -> None:
    """Show one saved slice: a button that opens it, and one that deletes it after confirmation."""
    current = one.data == study.dataset.fingerprint
    slice = read_slice(one.parameters, study.dataset, [], group_columns(study))
    slice = as_far_as_known(slice, examples.columns, scored=True)
    number = len(matching(examples, slice.filters()))
    count = f"{number:,} / {len(examples.table):,}" if current else "of other data"
    confirming = st.session_state.get("deleting") == one.name
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            f"{plain(one.name)} ({count})",
            key=f"open slice {one.name}",
            on_click=_open,
            args=(one,),
            width="stretch",
        )
        st.button(
            f"Delete {plain(one.name)} for everyone" if confirming else "Delete",
            icon=":material/delete:",
            key=f"delete slice {one.name}",
            on_click=_delete if confirming else _confirm,
            args=(study, one),
            **gate("write", one.who),
        )


def _form(study: StudyReader, location: Location) -> None:
    """Show the form that saves the selection if there is one, else the filters and the order."""
    slice = Slice(only=location.selected) if location.selected else location.slice
    with st.form("save_slice", border=False, clear_on_submit=True):
        st.text_input(
            "Save this slice as",
            key="slice_name",
            max_chars=LONGEST_NAME,
            placeholder="A name",
        )
        st.form_submit_button(
            "Save",
            icon=":material/bookmark_add:",
            on_click=_save,
            args=(study, slice),
            **gate("write"),
        )
    name = output_name(study.dataset)
    order = "as in the data"
    if (title := order_titles(name).get(slice.sort or "")) is not None:
        order = f"{title.lower()} first"
    chosen = slice.words(name) or "All examples"
    words = f"{chosen}; {order}. Everyone who opens this study can see it."
    st.html(f'<p class="dl-aside">{escape(words)}</p>')
    if "slice_message" in st.session_state:
        _message(*st.session_state.pop("slice_message"))


def _open(one: SavedSlice) -> None:
    """Callback: replace the filters with the slice. The page warns if its data differ."""
    wanted = {name: one.parameters.get(name) for name in (*PARAMETERS, FORMER)}
    go(**wanted, study=one.data[:8], page=None, selected=None)


def _confirm(study: StudyReader, one: SavedSlice) -> None:
    st.session_state["deleting"] = one.name


def _delete(study: StudyReader, one: SavedSlice) -> None:
    st.session_state.pop("deleting", None)
    try:
        delete_slice(study, one)
    except DataloupeError as error:
        st.session_state["slice_message"] = "wrong", str(error)
    else:
        st.session_state["slice_message"] = "good", f"“{one.name}” is deleted."


def _save(study: StudyReader, slice: Slice) -> None:
    try:
        one = save_slice(study, st.session_state["slice_name"], slice.parameters())
    except DataloupeError as error:
        st.session_state["slice_message"] = "wrong", str(error)
    else:
        st.session_state["slice_message"] = "good", f"“{one.name}” is saved."


def _message(kind: Literal["good", "wrong"], words: str) -> None:
    st.html(f'<p class="dl-result" data-kind="{kind}" role="status">{escape(words)}</p>')
