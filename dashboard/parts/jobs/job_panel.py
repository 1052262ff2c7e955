"""One job on any page, updated until the job ends.

if st.button("Verify"):
    st.session_state["verifying"] = submit(study, "verify", parameters)
if "verifying" in st.session_state:
    job_panel(study, st.session_state["verifying"])
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.parts.jobs.job_card import job_card
from dashboard.parts.layout.messages import notice
from engine.running.jobs.queue import Job, job, resume
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

SECONDS = 1.0


def job_panel(study: StudyReader, number: int, on_done: Callable[[Job], None] | None = None) -> Job:
    """Show the progress of a job, with a button to cancel it; return the job as it is now.

    The page reruns when the job ends, whatever its status.

    Args:
        on_done: Called once before that rerun if the job succeeds while this page is open.
    """
    before = job(study.root, number)

    @st.fragment(run_every=SECONDS if before.active else None)
    def watch() -> None:
        try:
            resume(study.root)
            now = job(study.root, number)
            job_card(study, now, with_log=now.status == "failed")
        except DataloupeError as error:
            notice("This job cannot be shown", str(error), kind="error")
            return
        if before.active and not now.active:
            if on_done is not None and now.status == "done":
                on_done(now)
            st.rerun()

    watch()
    return before
