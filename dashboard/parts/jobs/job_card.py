"""One job: its progress, its result, its log, and buttons to cancel or retry it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape

import streamlit as st

from dashboard.parts.jobs.cost import duration
from dashboard.permissions import gate
from dashboard.writes import cancel, retry
from engine.running.jobs.queue import Job, log
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

LOG_LINES = 200
MOST_LINES = 12
"""A longer log scrolls."""
WORDS = {
    "waiting": ("○", "Waiting"),
    "running": ("●", "Running"),
    "done": ("✓", "Done"),
    "failed": ("✕", "Failed"),
    "cancelled": ("–", "Cancelled"),
}


def job_card(study: StudyReader, job: Job, with_log: bool = True, within: str = "") -> None:
    """Show a job, with a button to cancel it or to retry it.

    Args:
        within: Distinguishes the card where the page may show the same job elsewhere.
    """
    one = f"{job.id}{within}"
    with st.container(border=True, key=f"job-{one}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            st.html(_head(job))
            if job.active:
                stop = st.button(
                    "Stopping…" if job.cancelling else "Cancel",
                    key=f"cancel-{one}",
                    icon=":material/stop_circle:",
                    **gate(
                        "run",
                        job.who,
                        help="Stops the job and all its processes. Finished work is kept.",
                        disabled=job.cancelling,
                    ),
                )
                if stop:
                    _act(lambda: cancel(study, job.id))
            elif job.status != "done":
                again = st.button(
                    "Retry",
                    key=f"retry-{one}",
                    icon=":material/replay:",
                    **gate("run", help="Runs the job again; finished work is not repeated."),
                )
                if again:
                    _act(lambda: retry(study, job.id))
        st.html(_body(job, time.time()))
        if with_log and job.started is not None:
            opened = st.expander("Log", key=f"log-{one}", on_change="rerun", type="compact")
            if opened.open:
                lines = log(study.root, job.id).splitlines()[-LOG_LINES:]
                text = "\n".join(lines) or "The log is empty."
                with opened.container(height=280 if len(lines) > MOST_LINES else "content"):
                    st.code(text, language=None, wrap_lines=True)


def _act(act: Callable[[], object]) -> None:
    try:
        act()
    except DataloupeError as error:
        st.toast(str(error))
    else:
        st.rerun()


def _head(job: Job) -> str:
    mark, word = WORDS[job.status]
    return (
        f'<div class="dl-job" data-status="{job.status}"><b>{escape(job.title)}</b>'
        f'<span class="dl-tag"><i aria-hidden="true">{mark}</i> {word}</span></div>'
    )


def _body(job: Job, now: float) -> str:
    bar = ""
    if job.active and job.total:
        share = 100 * min(1.0, job.done / job.total)
        bar = (
            f'<div class="dl-track" role="progressbar" aria-label="{escape(job.title)}" '
            f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}">'
            f'<i style="width:{share:.1f}%"></i></div>'
        )
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in facts_of(job, now))
    error = f'<p class="dl-job-error">{escape(job.error)}</p>' if job.error else ""
    return f'<div class="dl-job-body">{bar}<div class="dl-job-facts">{facts}</div>{error}</div>'


def facts_of(job: Job, now: float) -> list[str]:
    """The facts shown below a job's title and status, in order."""
    facts = []
    if job.status == "waiting":
        facts.append(f"waiting for {duration(now - job.submitted)}")
    if job.status == "running":
        facts.append(job.what or "starting")
    if job.total and job.status != "done":
        facts.append(f"{job.done:,} of {job.total:,}")
    if job.seconds_left is not None:
        facts.append(f"about {duration(job.seconds_left)} left")
    if job.status == "running" and job.started is not None:
        facts.append(f"running for {duration(now - job.started)}")
    if job.ended is not None:
        if job.started is not None:
            facts.append(f"took {duration(job.ended - job.started)}")
        facts.append(f"{datetime.fromtimestamp(job.ended, UTC):%Y-%m-%d %H:%M} UTC")
    if job.who:
        facts.append(f"started by {job.who}")
    if job.attempt > 1:
        facts.append("started again after an interruption")
    return facts
