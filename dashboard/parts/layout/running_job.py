"""A link to Jobs at the top of every page while a job is waiting or running."""

from __future__ import annotations

import contextlib

import streamlit as st

from dashboard.location import JOBS
from dashboard.names import plain
from dashboard.parts.layout.build_progress import build_elsewhere
from engine.running.jobs.queue import Job, jobs, resume
from engine.store.errors import StoreError
from engine.store.quantities import SHARE
from engine.store.records import Progress
from engine.study.reader import StudyReader
from engine.study.stage_titles import TITLES

SECONDS = 2.0
WIDTH = 260


def _of_jobs(active: list[Job]) -> str:
    first = active[-1]
    share = f"{SHARE.text(first.done / first.total)} · " if first.total else ""
    more = f" · {len(active) - 1:,} more" if len(active) > 1 else ""
    return f"{share}{plain(first.title)}{more}"


def _of_build(step: Progress) -> str:
    share = f"{SHARE.text(step.done / step.total)} · " if step.total > 1 else ""
    return f"{share}Building: {TITLES[step.stage].lower()}"


def working(study: StudyReader) -> None:
    """Show the running job or build, and resume jobs left by an earlier server.

    Errors are ignored here; the page Jobs shows them.
    """
    with contextlib.suppress(StoreError):
        resume(study.root)
        if not jobs(study.root, active=True) and build_elsewhere(study) is None:
            return

        # The style sheet truncates it if there is not enough room.
        @st.fragment(run_every=SECONDS)
        def watch() -> None:
            with contextlib.suppress(StoreError):
                active = jobs(study.root, active=True)
                step = None if active else build_elsewhere(study)
                if not active and step is None:
                    st.rerun()
                st.page_link(
                    JOBS,
                    label=_of_build(step) if step is not None else _of_jobs(active),
                    icon=":material/progress_activity:",
                    query_params=st.query_params.to_dict(),
                )

        with st.container(key="working", width=WIDTH):
            watch()
