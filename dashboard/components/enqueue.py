"""Put a job into the queue from a button; what is wrong with it waits for the next painting."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.errors import DataloupeError
from engine.jobs.queue import submit
from engine.study import Study


def enqueue(study: Study, kind: str, parameters: dict[str, Any], title: str) -> None:
    """Callback: put a job into the queue, or have `refusal` say why not."""
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
