"""Submit a job from a button; an error is shown on the next run of the page."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.permissions import gate
from dashboard.writes import submit
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader


def job_button(
    text: str,
    study: StudyReader,
    kind: str,
    parameters: dict[str, Any],
    title: str,
    **button: Any,
) -> None:
    """Show a button that submits a job.

    It does not use a callback: a callback would get the parameters of the previous run, and miss a
    number that was typed just before the click.

    Args:
        parameters: Of the job, from the current values of the fields next to the button.
        button: Further arguments of `st.button`.
    """
    allowed = gate("run", help=button.pop("help", None), disabled=button.pop("disabled", False))
    if st.button(text, **button, **allowed):
        enqueue(study, kind, parameters, title)
        st.rerun()


def enqueue(study: StudyReader, kind: str, parameters: dict[str, Any], title: str) -> None:
    """Submit a job; if it is refused, store the reason for `pop_message`."""
    try:
        submit(study, kind, parameters, title)
    except DataloupeError as error:
        set_message(kind, str(error))


def set_message(kind: str, text: str) -> None:
    """Store a message about the jobs of a kind for `pop_message`."""
    st.session_state[f"{kind}_message"] = text


def pop_message(kind: str) -> str | None:
    """The stored message about the jobs of a kind, if any; each is returned once."""
    message: str | None = st.session_state.pop(f"{kind}_message", None)
    return message
