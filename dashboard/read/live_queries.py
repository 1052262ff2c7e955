"""The worker that runs live queries: one for the whole server, shared by all sessions.

Models and uploaded inputs stay in that process. The pages' own process never imports torch and
never decodes a picture.
"""

from __future__ import annotations

import contextlib
import threading
import traceback

import streamlit as st

from engine.applications.live import Answer, Question
from engine.applications.live import ask as answer
from engine.applications.live import warm_up as load
from engine.running.kept_worker import KeptWorker
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

MEGABYTES = 20
"""The largest accepted input. The server's own limit may be higher, as models are larger."""
MEMORY_BYTES = 3 * 2**30
"""Memory limit; mapped files do not count. A picture with the most pixels allowed needs 1 GiB."""
THREADS = 1
"""Two small passes gain nothing from more threads, and lose much if other processes compute."""
IDLE_SECONDS = 900.0
LOADING_SECONDS = 180.0
ANSWER_SECONDS = 20.0
WAITING_SECONDS = 60.0


def warm_up(study: StudyReader, algorithm: str) -> None:
    """Start loading what queries need, without waiting for it."""
    worker = _worker()
    if worker.pid is None:
        question = Question(study.root, algorithm, b"")

        def begin() -> None:
            # Errors are reported on the first query.
            with contextlib.suppress(DataloupeError, RuntimeError):
                worker.call(load, question, LOADING_SECONDS)

        threading.Thread(target=begin, daemon=True).start()


def ask(study: StudyReader, algorithm: str, content: bytes | str, label: int | None) -> Answer:
    """Run a live query: the prediction for an example and the training data that explain it.

    Raises:
        DataloupeError: The input cannot be used, a time or memory limit is exceeded, or the
            worker is busy.
    """
    question = Question(study.root, algorithm, content, label)
    worker = _worker()
    try:
        worker.call(load, question, LOADING_SECONDS)
        found: Answer = worker.call(answer, question, ANSWER_SECONDS)
        return found
    except RuntimeError as error:
        traceback.print_exception(error)
        raise DataloupeError(
            "An unexpected error occurred; see the terminal that runs Dataloupe."
        ) from error


@st.cache_resource(show_spinner=False)
def _worker() -> KeptWorker:
    return KeptWorker(THREADS, MEMORY_BYTES, IDLE_SECONDS, WAITING_SECONDS)
