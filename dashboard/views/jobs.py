"""Jobs: progress and results of long-running work, which continues when this page is closed."""

from __future__ import annotations

import streamlit as st

from dashboard.parts.jobs.job_card import job_card
from dashboard.parts.jobs.submit_button import enqueue, pop_message
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.build_progress import build_elsewhere, show_build_elsewhere
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.page_title import title
from dashboard.permissions import gate, why_not
from dashboard.read.studies import open_study
from dashboard.writes import cancel_all
from engine.running.jobs.queue import Job, jobs, resume
from engine.store.errors import DataloupeError
from engine.study.audit_log import entries
from engine.study.progress import stage_progress

SECONDS = 1.0
SHOWN = 50
RECORDED = 200
"""Entries of the audit log."""

study = open_study()
st.html(title("Jobs", "long-running work, one at a time; it continues when this page is closed"))

listed = jobs(study.root, newest=SHOWN)
building = any(job.active and job.kind == "build" for job in listed)
elsewhere = build_elsewhere(study) is not None
if elsewhere:
    show_build_elsewhere()
elif not building and not all(step.complete for step in stage_progress(study)):
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(
            "Build what is missing", icon=":material/construction:", key="build", **gate("run")
        ):
            enqueue(study, "build", {}, "")
            st.rerun()
        aside(f"Some stages of this study are not computed yet. {why_not('run') or ''}")
if message := pop_message("build"):
    notice("The build cannot start", message, kind="error")

active = [job for job in listed if job.active]
if len(active) > 1 and st.button(
    f"Cancel all {len(active):,}", icon=":material/cancel:", key="cancel_all", **gate("change_any")
):
    cancel_all(study)
    st.rerun()


def order(job: Job) -> tuple[int, int]:
    """Sort key: running jobs, then waiting ones in order, then ended ones, latest first."""
    if job.active:
        return ("running", "waiting").index(job.status), job.id
    return 2, -job.id


@st.fragment(run_every=SECONDS if any(job.active for job in listed) else None)
def watch() -> None:
    """The list of jobs, refreshed every second while one is active."""
    try:
        resume(study.root)
        now = jobs(study.root, newest=SHOWN)
        for job in sorted(now, key=order):
            job_card(study, job)
    except DataloupeError as error:
        notice("The jobs cannot be shown", str(error), kind="error")
        return
    if any(job.active for job in listed) and not any(job.active for job in now):
        st.rerun()


if listed:
    watch()
elif not elsewhere:
    notice(
        "No jobs yet",
        "Long-running work, such as retraining models to verify a prediction, is started on other "
        "pages and listed here with its progress, remaining time and log. You can close the "
        "browser in the meantime.",
    )

if why_not("audit") is None and (recorded := entries(study.root, newest=RECORDED)):
    with st.expander("Audit log", icon=":material/history:"):
        st.dataframe(
            [
                {"When (UTC)": one.when[:19].replace("T", " "), "Who": one.who}
                | {"What": one.what, "Outcome": one.outcome}
                for one in recorded
            ],
            hide_index=True,
        )
