"""The worker that answers live queries: one for the whole server, shared by all sessions.

Models and whatever strangers upload stay in that process; the pages' own never imports torch and
never decodes a picture.
"""

from __future__ import annotations

import contextlib
import threading
import traceback

import streamlit as st

from engine.applications.live import Query, QueryResult, run_query
from engine.applications.live import warm_up as load
from engine.running.kept_worker import KeptWorker
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

MEGABYTES = 20
"""The largest file that is taken. The server itself may take more: models are larger."""
MEMORY_BYTES = 3 * 2**30
"""Mapped files do not count. A picture of the most pixels that are taken needs 1 GiB."""
THREADS = 1
"""Two small passes do not gain by more, and lose much where other processes compute."""
IDLE_SECONDS = 900.0
LOADING_SECONDS = 180.0
ANSWER_SECONDS = 20.0
WAITING_SECONDS = 60.0


def warm_up(study: StudyReader, algorithm: str) -> None:
    """Begin to load what answers need, without waiting for it."""
    worker = _worker()
    if worker.pid is None:
        query = Query(study.root, algorithm, b"")

        def begin() -> None:
            # Whatever goes wrong is said when somebody asks.
            with contextlib.suppress(DataloupeError, RuntimeError):
                worker.call(load, query, LOADING_SECONDS)

        threading.Thread(target=begin, daemon=True).start()


def ask(study: StudyReader, algorithm: str, content: bytes | str, label: int | None) -> QueryResult:
    """What the models say of an example, and which training data say so.

    Raises:
        DataloupeError: It cannot be used, or takes too long or too much, or others are asking.
    """
    query = Query(study.root, algorithm, content, label)
    worker = _worker()
    try:
        worker.call(load, query, LOADING_SECONDS)
        found: QueryResult = worker.call(run_query, query, ANSWER_SECONDS)
        return found
    except RuntimeError as error:
        traceback.print_exception(error)
        raise DataloupeError(
            "Something unexpected happened; the terminal that runs Dataloupe says what."
        ) from error


@st.cache_resource(show_spinner=False)
def _worker() -> KeptWorker:
    return KeptWorker(THREADS, MEMORY_BYTES, IDLE_SECONDS, WAITING_SECONDS)
