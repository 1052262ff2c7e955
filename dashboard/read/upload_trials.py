"""The worker that strangers' models are tried in: one for the whole server, bounded as study.toml
says. The pages' own process never imports torch and never loads a checkpoint."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from engine.applications.modeldiff.transformations import texture_of
from engine.exchange.uploads.keeping import Given, accept, trial_worker
from engine.exchange.uploads.report import QuickReport, Request, quick_report
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.cache import stamp_of
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader
from engine.study.uploads import Upload

TEXTURE_SECONDS = 20.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def take(
    study: StudyReader, given: Sequence[Given], name: str, architecture: str | None = None
) -> Upload:
    """Check files and keep them as one upload. Raises UploadError: then nothing is kept."""
    return accept(study, given, name, who(), architecture, _worker(study))


def report(study: StudyReader, upload: Upload, against: str) -> QuickReport:
    """What an upload says of the test examples, beside an algorithm of the study.

    Raises:
        DataloupeError: It no longer loads, takes too long or too much, or others are asking.
    """
    stamps = (
        stamp_of(layout.upload_file(study.root, upload.id)),
        stamp_of(layout.predictions_file(study.root, against, "test")),
        stamp_of(layout.dataset_file(study.root)),
    )
    return _report(str(study.root), upload.id, against, stamps, study)


@st.cache_resource(max_entries=64, show_spinner="Running the uploaded model on the test examples…")
def _report(
    root: str, upload: str, against: str, stamps: tuple[object, ...], _study: StudyReader
) -> QuickReport:
    request = Request(_study.root, upload, against)
    return _ask(_study, quick_report, request, _study.spec.uploads.seconds)


@st.cache_resource(max_entries=8, show_spinner=False)
def texture(content: bytes, shape: tuple[int, int, int], _study: StudyReader) -> np.ndarray:
    """A stranger's picture as a texture of this shape. Raises DataError: it is no picture."""
    return _ask(_study, partial(texture_of, shape=shape), content, TEXTURE_SECONDS)


def let_go(files: Sequence[UploadedFile]) -> None:
    """Free what the browser sent: Streamlit would keep it as long as the session lasts."""
    context = get_script_run_ctx()
    remove = getattr(context and context.uploaded_file_mgr, "remove_file", None)
    if context is not None and remove is not None:
        for file in files:
            remove(session_id=context.session_id, file_id=file.file_id)


def who() -> str:
    """Who is signed in; empty where nobody signs in."""
    user = st.user.to_dict()
    return str(user.get("name") or user.get("email") or "") if user.get("is_logged_in") else ""


def _ask(study: StudyReader, function: Callable[[Job], Result], job: Job, seconds: float) -> Result:
    try:
        return _worker(study).call(function, job, seconds)
    except RuntimeError as error:
        traceback.print_exception(error)
        raise DataloupeError(
            "Something unexpected happened; the terminal that runs Dataloupe says what."
        ) from error


def _worker(study: StudyReader) -> KeptWorker:
    return _kept(study.spec.uploads.memory_mib, study)


@st.cache_resource(show_spinner=False)
def _kept(memory_mib: int, _study: StudyReader) -> KeptWorker:
    return trial_worker(_study)
