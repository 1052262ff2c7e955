"""A word at the top of every page while a job waits or runs; it leads to Jobs."""

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
    """Show what runs, and start what a server before this one has left. Jobs says what is wrong."""
    with contextlib.suppress(StoreError):
        resume(study.root)
        if not jobs(study.root, active=True):
            return

        # Its end is cut by the style sheet where there is no room.
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
