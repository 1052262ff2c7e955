"""The uploaded models: files, size, user and date; rename or delete one."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.location import go
from dashboard.names import plain
from dashboard.parts.layout.blocks import aside
from dashboard.permissions import gate
from dashboard.writes import delete_upload, rename_upload
from engine.exchange.uploads.room import used_bytes
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader
from engine.study.uploads import Upload

MIB = 2**20
SHOWN_FILES = 8
_MESSAGE = "uploads_message"


def upload_list(study: StudyReader) -> None:
    """Show all uploads, newest first, and the disk space they use."""
    used, quota = used_bytes(study) / MIB, study.spec.uploads.quota_mib
    uploads = study.uploads
    if message := st.session_state.pop(_MESSAGE, None):
        kind, text = message
        st.html(f'<p class="dl-result" data-kind="{kind}" role="status">{escape(text)}</p>')
    for upload in uploads.values():
        _entry(study, upload)
    count = f"{len(uploads):,} upload{'s' if len(uploads) != 1 else ''}"
    aside(
        f"{count}, visible to everyone who can open this study; {used:,.1f} of {quota:,} MiB used."
    )


def checkpoints_words(upload: Upload) -> str:
    """The number of checkpoints, and how many more are needed if they are too few."""
    count = len(upload.files)
    words = f"{count:,} checkpoint{'s' if count != 1 else ''}"
    return f"{words}, indicative: {upload.wanted:,} more needed" if upload.indicative else words


def _entry(study: StudyReader, upload: Upload) -> None:
    confirming = st.session_state.get("deleting_upload") == upload.id
    with st.container(border=True, key=f"entry-{upload.id}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f'<div class="dl-job"><b>{escape(upload.name)}</b></div>', width="stretch")
            st.button(
                "Open",
                key=f"look-{upload.id}",
                icon=":material/visibility:",
                help=f"Compare {plain(upload.name)} with the study's model",
                on_click=_open,
                args=(study, upload),
            )
            with st.popover("Rename", icon=":material/edit:", width="content"):
                st.text_input("New name", value=upload.name, key=f"name-{upload.id}", max_chars=100)
                st.button(
                    "Save",
                    key=f"rename-{upload.id}",
                    on_click=_rename,
                    args=(study, upload),
                    **gate("upload", upload.who),
                )
            st.button(
                f"Delete {plain(upload.name)} for everyone" if confirming else "Delete",
                key=f"delete-{upload.id}",
                icon=":material/delete:",
                on_click=_delete if confirming else _confirm,
                args=(study, upload),
                **gate("upload", upload.who),
            )
        by = f" by {upload.who}" if upload.who else ""
        options = ", ".join(f"{k} = {v}" for k, v in upload.architecture_options.items())
        architecture = f"{upload.architecture} ({options})" if options else upload.architecture
        facts = [
            architecture,
            checkpoints_words(upload),
            f"{upload.size / MIB:,.2f} MiB",
            f"{upload.when[:16].replace('T', ' ')} UTC{by}",
        ]
        spans = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
        files = "".join(
            f"<li>{escape(file.name)} <code>{file.sha256[:16]}</code></li>"
            for file in upload.files[:SHOWN_FILES]
        )
        more = len(upload.files) - SHOWN_FILES
        files += f"<li>and {more:,} more</li>" if more > 0 else ""
        files += "".join(f"<li>{escape(copy)}</li>" for copy in upload.copies)
        st.html(
            f'<div class="dl-job-body"><div class="dl-job-facts">{spans}</div>'
            f'<ul class="dl-list" aria-label="Files and the start of their SHA-256">{files}</ul>'
            "</div>"
        )


def _open(study: StudyReader, upload: Upload) -> None:
    first = next(iter(study.spec.algorithms))
    go(a=first, b=upload.id, direction=None, side=None, pane=None)


def _rename(study: StudyReader, upload: Upload) -> None:
    try:
        rename_upload(study, upload.id, st.session_state[f"name-{upload.id}"])
    except DataloupeError as error:
        st.session_state[_MESSAGE] = "wrong", str(error)


def _confirm(study: StudyReader, upload: Upload) -> None:
    st.session_state["deleting_upload"] = upload.id


def _delete(study: StudyReader, upload: Upload) -> None:
    st.session_state.pop("deleting_upload", None)
    try:
        delete_upload(study, upload.id)
    except DataloupeError as error:
        st.session_state[_MESSAGE] = "wrong", str(error)
        return
    st.session_state[_MESSAGE] = (
        "good",
        f"Deleted “{upload.name}” and everything computed from it.",
    )
    gone = [key for key in ("a", "b", "algorithm") if st.query_params.get(key) == upload.id]
    go(**dict.fromkeys([*gone, "direction", "side", "test"]))
