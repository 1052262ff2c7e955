"""Tags and notes of one prediction, with undo. Everyone who opens the study shares them."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from dashboard.names import plain
from dashboard.permissions import gate
from dashboard.read.supports import read_tagged
from dashboard.writes import note, tag, undo, untag
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader
from engine.study.tags import LONGEST_NOTE, LONGEST_TAG, TagsAndNotes

WORDS = {
    "tag": "adding the tag “{}”",
    "untag": "removing the tag “{}”",
    "note": "adding the note “{}”",
}


def tags_panel(study: StudyReader, algorithm: str, row: int) -> None:
    """Show the tags and notes, with controls to add, remove and undo."""
    current = read_tagged(study, algorithm).get(row, TagsAndNotes())
    with st.container(key="triage"):
        st.html('<h3 class="dl-heading">Tags and notes</h3>')
        with st.container(horizontal=True, vertical_alignment="bottom"):
            for name in current.tags:
                st.button(
                    plain(name),
                    icon=":material/close:",
                    key=f"untag {name}",
                    **gate("write", help="Remove this tag"),
                    on_click=_do,
                    args=(untag, study, algorithm, row, name),
                )
            st.text_input(
                "Add a tag",
                key=f"new_tag_{row}",
                max_chars=LONGEST_TAG,
                placeholder="mislabeled",
                on_change=_add,
                args=(tag, f"new_tag_{row}", study, algorithm, row),
                width=200,
                **gate("write"),
            )
            st.text_input(
                "Add a note",
                key=f"new_note_{row}",
                max_chars=LONGEST_NOTE,
                on_change=_add,
                args=(note, f"new_note_{row}", study, algorithm, row),
                width=360,
                **gate("write"),
            )
            last = current.last
            st.button(
                "Undo",
                icon=":material/undo:",
                key="undo",
                **gate(
                    "write",
                    None if last is None else last.who,
                    help=None if last is None else f"Undo {_words(last.action, last.value)}",
                    disabled=last is None,
                ),
                on_click=_do,
                args=(undo, study, algorithm, row),
            )
        if current.notes:
            entries = "".join(f"<li>{escape(words)}</li>" for words in current.notes)
            st.html(f'<ul class="dl-list dl-notes" aria-label="Notes">{entries}</ul>')
        if "triage_message" in st.session_state:
            words = escape(st.session_state.pop("triage_message"))
            st.html(f'<p class="dl-result" data-kind="wrong" role="status">{words}</p>')


def _words(action: str, value: str) -> str:
    cut = value if len(value) <= 40 else value[:39] + "…"
    return plain(WORDS[action].format(cut))


def _add(
    action: Callable[..., object], key: str, study: StudyReader, algorithm: str, row: int
) -> None:
    """Callback of a field: apply the action to its text, and clear the field."""
    text = st.session_state[key]
    st.session_state[key] = ""
    if text.strip():
        _do(action, study, algorithm, row, text)


def _do(action: Callable[..., object], *arguments: object) -> None:
    """Callback: make a change; an error is shown on the page."""
    try:
        action(*arguments)
    except DataloupeError as error:
        st.session_state["triage_message"] = str(error)
