"""The jobs of the study, opened from the header of every page."""

from __future__ import annotations

import contextlib

import streamlit as st

from dashboard.location import JOBS
from dashboard.parts.jobs.job_card import job_card
from dashboard.parts.layout.build_progress import build_elsewhere, build_panel
from engine.running.jobs.queue import jobs, resume
from engine.store.errors import StoreError
from engine.store.quantities import SHARE
from engine.study.reader import StudyReader

SECONDS = 2.0
SHOWN = 5
"""Ended jobs in the drawer."""


def drawer(study: StudyReader) -> None:
    """Show a button with the number of running jobs, a build among them, that opens the drawer.

    Resumes jobs left by an earlier server. Errors are ignored here; the page Jobs shows them.
    """
    with contextlib.suppress(StoreError):
        resume(study.root)
    working = _working(study) > 0

    # What is drawn twice a second costs nothing while nothing runs.
    @st.fragment(run_every=SECONDS if working else None)
    def button() -> None:
        number = _working(study)
        if working and not number:
            st.rerun()
        opened = st.popover(
            _label(study, number),
            icon=":material/progress_activity:" if number else ":material/pending_actions:",
            width="content",
            key="jobs_drawer",
            on_change="rerun",
        )
        if opened.open:
            with opened:
                _list(study)

    button()


def _working(study: StudyReader) -> int:
    """How many jobs are waiting or running, and builds that were started elsewhere."""
    with contextlib.suppress(StoreError):
        return len(jobs(study.root, active=True)) + (build_elsewhere(study) is not None)
    return 0


def _label(study: StudyReader, number: int) -> str:
    """The button's text: how many run, and how far the first of them is."""
    if not number:
        return "Jobs"
    share = ""
    with contextlib.suppress(StoreError):
        active = jobs(study.root, active=True)
        first = active[-1] if active else build_elsewhere(study)
        if first is not None and first.total > 1:
            share = f" · {SHARE.text(first.done / first.total)}"
    return f"Jobs ({number:,}){share}"


def _list(study: StudyReader) -> None:
    """Active jobs, then those that ended last."""
    try:
        listed = jobs(study.root, newest=50)
    except StoreError as error:
        st.caption(str(error))
        return
    st.html('<h2 class="dl-heading dl-jobs">Jobs</h2>')
    active = [job for job in listed if job.active]
    ended = [job for job in listed if not job.active]
    if build_elsewhere(study) is not None:
        st.html(build_panel(study))
    for job in [*active, *ended[:SHOWN]]:
        job_card(study, job, with_log=False, within="-drawer")
    if not listed:
        st.caption("Long-running work is listed here: retraining, audits, comparisons and builds.")
    st.page_link(
        JOBS,
        label=f"All jobs ({len(listed):,})" if listed else "Open Jobs",
        icon=":material/arrow_forward:",
        query_params=st.query_params.to_dict(),
    )
