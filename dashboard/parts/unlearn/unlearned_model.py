"""Make and download an unlearned model with its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside, facts
from dashboard.parts.layout.messages import warning
from dashboard.parts.unlearn.audit_form import budget_input
from dashboard.read.audits import content_of, latest_job, title_of
from engine import store
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.certificate import certified_file, check_job
from engine.applications.unlearning.settings import TITLES, UNCHANGED
from engine.build.retraining import Removal
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

KIND = "certify"
ALONE = [method for method in TITLES if method not in (UNCHANGED, "oracle")]
"""Methods that need no audit."""


def unlearned_model(
    study: StudyReader, algorithm: str, removed: Removal, audit: Audit | None, method: str | None
) -> None:
    """Make a model, or download the one that was made.

    Args:
        audit: Its settings are used and it is part of the certificate. None: the certificate
            states that nothing was audited.
        method: Of the audit.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", key="model_form"):
        if audit is None or method is None:
            method = st.selectbox(
                "Method", ALONE, ALONE.index("matching"), format_func=title_of, key="model_method"
            )
            budget = budget_input("model_budget")
            about: dict[str, Any] = {"forget": list(removed), "budget": budget}
        else:
            about = {"audit": audit.id}
        total = study.checkpoints(algorithm)
        checkpoint = st.number_input(
            f"Checkpoint, 0 to {total - 1:,}", 0, total - 1, 0, key="model_checkpoint", width=170
        )
        about |= {"algorithm": algorithm, "method": method, "checkpoint": int(checkpoint)}
    try:
        parameters = check_job(study, about)
        path = certified_file(study, parameters)
    except DataloupeError as error:
        warning([str(error)])
        return
    if path.with_suffix(".json").exists():
        certificate = store.read_json(path.with_suffix(".json"))
        _download(study, algorithm, path.name.removesuffix(".safetensors"), certificate)
        return
    job = latest_job(study, KIND, algorithm, removed)
    if job is not None and job.status != "done" and job.parameters == parameters:
        job_panel(study, job.id)
        if job.active:
            return
    job_button(
        "Make this model",
        study,
        KIND,
        parameters,
        f"Unlearn checkpoint {checkpoint} by {title_of(method)}",
        icon=":material/deployed_code:",
        type="primary",
        key="certify",
    )
    if message := pop_message(KIND):
        warning([message])
    words = f"Checkpoint {checkpoint:,}, unlearned by {title_of(method)}, as safetensors, "
    words += "with a certificate: forgotten examples, method, original file, and "
    words += "the audit." if audit is not None else "a statement that nothing was audited."
    aside(words)


def _download(
    study: StudyReader, algorithm: str, name: str, certificate: Mapping[str, Any]
) -> None:
    audit = certificate["audit"]
    path = layout.unlearned_model_file(study.root, algorithm, name.removeprefix("unlearned-"))
    facts(
        {
            "Forgotten": f"{len(certificate['forgotten']):,} training examples",
            "Method": f"{title_of(certificate['method'])}, seed {certificate['seed']}",
            "From": f"checkpoint {certificate['checkpoint']}, SHA-256 "
            f"{certificate['original_sha256']}",
            "Model": f"SHA-256 {certificate['model_sha256']}",
            "Audit": "none" if audit is None else f"{audit['id']}, {audit['models']:,} models",
            "Made": str(certificate["created"]),
        }
    )
    with st.container(horizontal=True):
        for text, file, mime, key in (
            ("Model (.safetensors)", path, "application/octet-stream", "download_model"),
            ("Certificate (JSON)", path.with_suffix(".json"), "application/json", "download_json"),
        ):
            st.download_button(
                text,
                partial(content_of, file),
                file_name=file.name,
                mime=mime,
                on_click="ignore",
                icon=":material/download:",
                key=key,
            )
