"""Upload a model: its checkpoints, what it is called, which architecture it is of."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.location import go
from dashboard.parts.layout.blocks import aside
from dashboard.read.upload_trials import let_go, take
from engine.exchange.uploads.keeping import Given
from engine.models import ARCHITECTURES
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader
from engine.study.uploads import ENOUGH, preprocessing_of

LONGEST_NAME = 100
TOLD = "upload_told"


def upload_form(study: StudyReader) -> None:
    """Take checkpoints. What is refused is said in one line; what is taken is looked at next."""
    limits = study.spec.uploads
    # A key of its own for each attempt: the browser's files are let go with the old one.
    turn = st.session_state.setdefault("upload_turn", 0)
    files = st.file_uploader(
        "Checkpoints of one model, .safetensors",
        type=["safetensors"],
        accept_multiple_files=True,
        max_upload_size=limits.max_mib,
        key=f"checkpoints_{turn}",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Name",
            key=f"upload_name_{turn}",
            max_chars=LONGEST_NAME,
            placeholder="As the first file",
            width=260,
        )
        st.selectbox(
            "Architecture",
            architectures(study),
            index=None,
            placeholder="Recognise it",
            key=f"upload_architecture_{turn}",
            width=260,
        )
        st.button(
            "Check and keep",
            icon=":material/upload:",
            type="primary",
            key="upload",
            disabled=not files,
            on_click=_take,
            args=(study,),
        )
    if told := st.session_state.pop(TOLD, None):
        st.html(f'<p class="dl-result" data-kind="wrong" role="alert">{escape(told)}</p>')
    aside(
        f"Trained on this study's training data, and fed with: "
        f"{preprocessing_of(study.dataset.encoding)} Up to {limits.max_files:,} files of "
        f"{limits.max_mib:,} MiB; {ENOUGH} checkpoints or more let chance in training be told from "
        "a difference, one is a hint. A file of torch.save is refused, as opening one runs what "
        "is in it: dataloupe convert model.pt makes a safetensors of your own."
    )
    if limits.keep_days:
        aside(f"Uploads are deleted after {limits.keep_days:,} days.")


def architectures(study: StudyReader) -> list[str]:
    """What an upload may be: the study's own architectures, then the other built-ins."""
    own = [spec.architecture for spec in study.spec.algorithms.values()]
    return list(dict.fromkeys([*own, *ARCHITECTURES]))


def _take(study: StudyReader) -> None:
    """Callback: check the files and keep them, then let go of what the browser sent."""
    turn = st.session_state["upload_turn"]
    files = st.session_state.get(f"checkpoints_{turn}") or []
    name = st.session_state.get(f"upload_name_{turn}", "")
    architecture = st.session_state.get(f"upload_architecture_{turn}")
    try:
        with st.spinner("Checking…"):
            upload = take(study, [Given(file.name, file) for file in files], name, architecture)
    except DataloupeError as error:
        st.session_state[TOLD] = str(error)
    except OSError as error:
        st.session_state[TOLD] = f"Uploads cannot be written: {error.strerror}."
    else:
        a = st.query_params.get("a")
        go(a=None if a == upload.id else a, b=upload.id, direction=None, side=None)
    let_go(files)
    st.session_state["upload_turn"] = turn + 1
