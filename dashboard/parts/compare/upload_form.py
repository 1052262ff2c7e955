"""Upload a model: its checkpoints, name and architecture."""

from __future__ import annotations

from contextlib import ExitStack
from html import escape

import streamlit as st

from dashboard.location import go
from dashboard.parts.controls.uploader import uploader
from dashboard.parts.layout.blocks import aside
from dashboard.permissions import gate, why_not
from dashboard.read.upload_trials import accept_upload, free_files
from dashboard.server.uploaded_files import opened
from engine.exchange.uploads.keeping import Given
from engine.models import ARCHITECTURES
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader
from engine.study.uploads import ENOUGH, preprocessing_of

LONGEST_NAME = 100
MESSAGE = "upload_message"


def upload_form(study: StudyReader) -> None:
    """Show the form. A refused upload shows one error line; an accepted one is opened next."""
    limits = study.spec.uploads
    # A separate key for each attempt, so that the browser's files are freed with the old one.
    turn = st.session_state.setdefault("upload_turn", 0)
    if reason := why_not("upload"):
        aside(reason)
        return
    files = uploader(
        "Checkpoints of one model (.safetensors)",  # any name: the content decides
        key=f"checkpoints_{turn}",
        megabytes=limits.max_mib,
        accept_multiple_files=True,
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Name",
            key=f"upload_name_{turn}",
            max_chars=LONGEST_NAME,
            placeholder="Name of the first file",
            width=260,
        )
        st.selectbox(
            "Architecture",
            architectures(study),
            index=None,
            placeholder="Detect automatically",
            key=f"upload_architecture_{turn}",
            width=260,
        )
        st.button(
            "Check and save",
            icon=":material/upload:",
            type="primary",
            key="upload",
            on_click=_accept,
            args=(study,),
            **gate("upload", disabled=not files),
        )
    if message := st.session_state.pop(MESSAGE, None):
        st.html(f'<p class="dl-result" data-kind="wrong" role="alert">{escape(message)}</p>')
    aside(
        f"The model must be trained on this study's training data. Its inputs: "
        f"{preprocessing_of(study.dataset.encoding)} Up to {limits.max_files:,} files of "
        f"{limits.max_mib:,} MiB. {ENOUGH} checkpoints or more separate a real difference from "
        "training randomness; one is only indicative. Files made by torch.save are refused, as "
        "opening one runs the code in it: convert your own with dataloupe convert model.pt."
    )
    if limits.keep_days:
        aside(f"Uploads are deleted after {limits.keep_days:,} days.")


def architectures(study: StudyReader) -> list[str]:
    """Architectures an upload can have: the study's own, then the other built-in ones."""
    own = [spec.architecture for spec in study.spec.algorithms.values()]
    return list(dict.fromkeys([*own, *ARCHITECTURES]))


def _accept(study: StudyReader) -> None:
    """Callback: check and save the files, then free the browser's copies."""
    turn = st.session_state["upload_turn"]
    files = st.session_state.get(f"checkpoints_{turn}") or []
    name = st.session_state.get(f"upload_name_{turn}", "")
    architecture = st.session_state.get(f"upload_architecture_{turn}")
    try:
        with st.spinner("Checking…"), ExitStack() as open_files:
            given = [Given(file.name, open_files.enter_context(opened(file))) for file in files]
            upload = accept_upload(study, given, name, architecture)
    except DataloupeError as error:
        st.session_state[MESSAGE] = str(error)
    except OSError as error:
        st.session_state[MESSAGE] = f"Uploads cannot be written: {error.strerror}."
    else:
        a = st.query_params.get("a")
        go(a=None if a == upload.id else a, b=upload.id, direction=None, side=None)
    free_files(files)
    st.session_state["upload_turn"] = turn + 1
