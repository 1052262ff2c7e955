"""Put a job into the queue from a button; what is wrong with it waits for the next painting."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.running.jobs.queue import submit
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader


def job_button(
    label: str,
    study: StudyReader,
    kind: str,
    parameters: dict[str, Any],
    title: str,
    **button: Any,
) -> None:
    """A button that puts a job into the queue.

    It is no callback of the button: that would get the parameters as they were painted last, and
    who types a number and clicks at once is asking for the one just typed.

    Args:
        parameters: Of the job, as the fields beside the button say now.
        button: More of `st.button`.
    """
    if st.button(label, **button):
        enqueue(study, kind, parameters, title)
        st.rerun()


def enqueue(study: StudyReader, kind: str, parameters: dict[str, Any], title: str) -> None:
    """Put a job into the queue, or have `refusal` say why not."""
    try:
        submit(study, kind, parameters, title)
    except DataloupeError as error:
        tell(kind, str(error))


def tell(kind: str, words: str) -> None:
    """Have `refusal` say this of the jobs of a kind."""
    st.session_state[f"{kind}_told"] = words


def refusal(kind: str) -> str | None:
    """What is to be said of the jobs of a kind, once."""
    told: str | None = st.session_state.pop(f"{kind}_told", None)
    return told
