"""The worker that runs uploaded models: one for the whole server, with the limits of study.toml.

The pages' own process never imports torch and never loads a checkpoint.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from dashboard.writes import accept_upload as accept
from engine.applications.modeldiff.transformations import texture_of
from engine.exchange.uploads.keeping import Given, trial_worker
from engine.exchange.uploads.report import QuickReport, Request, quick_report
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader
from engine.study.uploads import Upload

TEXTURE_SECONDS = 20.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def accept_upload(
    study: StudyReader, given: Sequence[Given], name: str, architecture: str | None = None
) -> Upload:
    """Check files and save them as one upload.

    Raises:
        UploadError: The files are refused; nothing is saved.
    """
    return accept(study, given, name, architecture, _worker(study))


def report(study: StudyReader, upload: Upload, against: str) -> QuickReport:
    """Compare the predictions of an upload with those of an algorithm of the study.

    Raises:
        DataloupeError: It no longer loads, exceeds the time or memory limit, or the worker is
            busy.
    """
    files = [
        layout.upload_file(study.root, upload.id),
        layout.predictions_file(study.root, against, "test"),
        layout.dataset_file(study.root),
        *(layout.uploaded_weights_file(study.root, file.sha256) for file in upload.files),
    ]
    return _report(upload.id, against, stamps_of(files), study)


@st.cache_resource(max_entries=64, show_spinner="Running the uploaded model on the test examples…")
def _report(upload: str, against: str, stamps: Stamps, _study: StudyReader) -> QuickReport:
    request = Request(_study.root, upload, against)
    return _call(_study, quick_report, request, _study.spec.uploads.seconds)


@st.cache_resource(max_entries=8, show_spinner=False)
def texture(content: bytes, shape: tuple[int, int, int], _study: StudyReader) -> np.ndarray:
    """An uploaded picture as a texture of this shape. Raises DataError if it is not a picture, or
    takes too long to read."""
    return _call(_study, partial(texture_of, shape=shape), content, TEXTURE_SECONDS)


def free_files(files: Sequence[UploadedFile]) -> None:
    """Free the files the browser sent, which Streamlit would keep until the session ends."""
    context = get_script_run_ctx()
    remove = getattr(context and context.uploaded_file_mgr, "remove_file", None)
    if context is not None and remove is not None:
        for file in files:
            remove(session_id=context.session_id, file_id=file.file_id)


def _call(
    study: StudyReader, function: Callable[[Job], Result], job: Job, seconds: float
) -> Result:
    try:
        return _worker(study).call(function, job, seconds)
    except RuntimeError as error:
        traceback.print_exception(error)
        raise DataloupeError(
            "An unexpected error occurred; see the terminal that runs Dataloupe."
        ) from error


def _worker(study: StudyReader) -> KeptWorker:
    return _kept(study.spec.uploads.memory_mib, study)


@st.cache_resource(show_spinner=False)
def _kept(memory_mib: int, _study: StudyReader) -> KeptWorker:
    return trial_worker(_study)
