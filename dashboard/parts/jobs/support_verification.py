"""Verify data support from the page: buttons that submit the job, and its progress."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from dashboard.parts.jobs.cost import cost_words
from dashboard.parts.jobs.job_card import job_card
from dashboard.parts.jobs.submit_button import enqueue, pop_message, set_message
from dashboard.permissions import gate
from dashboard.read.studies import open_study
from engine.applications.brittle.supports import Supports
from engine.running.jobs.queue import Job, job, jobs
from engine.store import layout
from engine.study.reader import StudyReader

KIND = "brittle"
MOST_AT_ONCE = 200
SEEDS = 5
SECONDS = 2.0


def verify_button(study: StudyReader, found: Supports, row: int, exact: bool = False) -> None:
    """Show a button that retrains without the removal set of one prediction.

    Args:
        exact: Without the set found by replay.
    """
    clicked = st.button(
        "Verify",
        icon=":material/science:",
        key="verify_exact" if exact else "verify",
        **gate(
            "run",
            help=f"Retrain {SEEDS} models without its removal set: "
            f"{cost_words(study, found.algorithm, SEEDS)} here",
        ),
    )
    if clicked:
        _submit(study, found, [row], SEEDS, exact)
        st.rerun()  # The whole page: the progress is shown above this fragment.


def verify_first(study: StudyReader, found: Supports, rows: np.ndarray) -> None:
    """Show a button that verifies the first predictions of the filtered list."""
    most = min(len(rows), MOST_AT_ONCE)
    with st.popover("Verify", icon=":material/science:", width="content"):
        if not most:
            st.html('<p class="dl-aside">The list is empty.</p>')
            return
        with st.container(horizontal=True):
            first = st.number_input("Predictions", 1, most, min(10, most), key="first", width=150)
            seeds = st.number_input("Models for each", 1, 20, SEEDS, key="seeds", width=150)
        time = cost_words(study, found.algorithm, first * seeds)
        st.html(f'<p class="dl-aside">Trains at most {first * seeds:,} models: {time} here.</p>')
        st.button(
            "Verify",
            key="verify_first",
            on_click=_submit_first,
            args=(study, found, rows),
            **gate("run"),
        )


def progress(study: StudyReader) -> None:
    """Show the progress of all waiting and running verifications, whoever submitted them.

    The page reruns when another prediction is verified or a job ends.
    """
    if message := pop_message(KIND):
        st.html(f'<p class="dl-result" data-kind="wrong" role="status">{escape(message)}</p>')
    active = _active(study)
    if not active:
        return
    seen = (
        len(layout.verification_files(study.root, active[0].parameters["algorithm"])),
        _numbers(active),
    )

    @st.fragment(run_every=SECONDS)
    def watch() -> None:
        study = open_study()
        now = _active(study)
        algorithm = active[0].parameters["algorithm"]
        if (len(layout.verification_files(study.root, algorithm)), _numbers(now)) != seen:
            _report_failures(study, _numbers(active) - _numbers(now))
            st.rerun()
        for one in now:
            job_card(study, one, with_log=False)

    watch()


def _active(study: StudyReader) -> list[Job]:
    return [one for one in jobs(study.root, active=True) if one.kind == KIND]


def _numbers(some: list[Job]) -> set[int]:
    return {one.id for one in some}


def _report_failures(study: StudyReader, ended: set[int]) -> None:
    for number in sorted(ended):
        one = job(study.root, number)
        if one.status == "failed":
            set_message(KIND, f"{one.title} failed: {one.error}")


def _submit_first(study: StudyReader, found: Supports, rows: np.ndarray) -> None:
    """Callback: read the fields again, since they may have changed since the last run."""
    first, seeds = (int(st.session_state[name]) for name in ("first", "seeds"))
    _submit(study, found, [int(row) for row in rows[:first]], seeds)


def _submit(
    study: StudyReader, found: Supports, rows: list[int], seeds: int, exact: bool = False
) -> None:
    """Submit the job; an error is shown on the page."""
    parameters = {
        "tests": rows,
        "seeds": seeds,
        "at_most": found.at_most,
        "probability": found.probability,
        "algorithm": found.algorithm,
        "method": found.method,
        "exact": exact,
    }
    what = f"test example {rows[0]}" if len(rows) == 1 else f"{len(rows)} predictions"
    enqueue(study, KIND, parameters, f"Verify {what}")
