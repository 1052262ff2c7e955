"""A link to Jobs at the top of every page while a job is waiting or running."""

from __future__ import annotations

import contextlib

import streamlit as st

from dashboard.location import JOBS
from dashboard.names import plain
from engine.running.jobs.queue import jobs, resume
from engine.store.errors import StoreError
from engine.study.reader import StudyReader

SECONDS = 2.0
WIDTH = 260


def working(study: StudyReader) -> None:
    """Show the running job, and resume jobs left by an earlier server.

    Errors are ignored here; the page Jobs shows them.
    """
    with contextlib.suppress(StoreError):
        resume(study.root)
        if not jobs(study.root, active=True):
            return

        # The style sheet truncates it if there is not enough room.
        @st.fragment(run_every=SECONDS)
        def watch() -> None:
            with contextlib.suppress(StoreError):
                active = jobs(study.root, active=True)
                if not active:
                    st.rerun()
                first = active[-1]
                share = f"{first.done / first.total:.0%} · " if first.total else ""
                more = f" · {len(active) - 1:,} more" if len(active) > 1 else ""
                st.page_link(
                    JOBS,
                    label=f"{share}{plain(first.title)}{more}",
                    icon=":material/progress_activity:",
                    query_params=st.query_params.to_dict(),
                )

        with st.container(key="working", width=WIDTH):
            watch()
