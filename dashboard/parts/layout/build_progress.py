"""Build progress, shown in place of a page until its part of the study is built."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from dashboard.location import COMPARE
from dashboard.names import short
from dashboard.parts.layout.messages import notice
from dashboard.read.studies import open_study
from engine.running.jobs.queue import jobs
from engine.store.records import Progress
from engine.study.lock import is_locked
from engine.study.names import resolve_algorithm
from engine.study.progress import stage_progress
from engine.study.reader import StudyReader
from engine.study.stage_titles import TITLES

SECONDS = 1.5


def building(
    title: str, ready: Callable[[StudyReader], bool], algorithm: str, in_line: bool = False
) -> None:
    """Show the progress of the build; rerun the page when the study is `ready`.

    Args:
        in_line: In one line, for pages that already show something.
    """
    study = open_study()
    if algorithm in study.uploads:
        notice(
            title,
            f"“{short(study.uploads[algorithm].name)}” was uploaded. Its predictions and scores "
            "are computed when it is compared: start that on the page Compare. Similar examples, "
            "maps and live queries are available for the study's own algorithms only.",
        )
        with st.container(horizontal=True, horizontal_alignment="center"):
            st.page_link(
                COMPARE,
                label="Compare it",
                icon=":material/difference:",
                query_params={"a": resolve_algorithm(study), "b": algorithm},
            )
        return

    @st.fragment(run_every=SECONDS)
    def watch() -> None:
        study = open_study()
        if ready(study):
            st.rerun()
        steps = [step for step in stage_progress(study) if step.algorithm in (None, algorithm)]
        draw = _line if in_line else _panel
        st.html(draw(title, steps, study), width="content" if in_line else "stretch")

    watch()


def build_elsewhere(study: StudyReader) -> Progress | None:
    """The stage at which a build is that was not started as a job, such as in a terminal."""
    if not is_locked(study) or jobs(study.root, active=True):
        return None
    return next((step for step in stage_progress(study) if not step.complete), None)


def show_build_elsewhere() -> None:
    """Show the progress of such a build; rerun the page when it ends."""

    @st.fragment(run_every=SECONDS)
    def watch() -> None:
        study = open_study()
        if build_elsewhere(study) is None:
            st.rerun()
        st.html(build_panel(study))

    watch()


def build_panel(study: StudyReader) -> str:
    """The progress of such a build, as HTML."""
    return _panel("A build is running, started outside the dashboard", stage_progress(study), study)


def unpredicted(study: StudyReader) -> None:
    """Explain why imported scores are shown without predictions."""
    st.html(
        '<p class="dl-aside">The scores are imported, and this study has no predictions yet. '
        f"Train a model with <code>dataloupe build {escape(str(study.root))}</code>.</p>"
    )


def _panel(title: str, steps: list[Progress], study: StudyReader) -> str:
    current = next((step for step in steps if not step.complete), None)
    entries = "".join(_entry(step, step is current) for step in steps)
    return (
        f'<div class="dl-building" role="status"><h2>{escape(title)}</h2><ol>{entries}</ol>'
        f"<p>{_what_to_do(study)}</p></div>"
    )


def _line(title: str, steps: list[Progress], study: StudyReader) -> str:
    current = next((step for step in steps if not step.complete), None)
    state, share = "no build is running; start it on Jobs", 0.0
    if current is not None and is_locked(study):
        state = f"{TITLES[current.stage]}: {current.done:,} of {current.total:,}"
        share = 100 * current.done / max(1, current.total)
    return (
        f'<div class="dl-progress" role="status"><b>{escape(title)}</b> · {escape(state)}'
        f'<div class="dl-track"><i style="width:{share:.0f}%"></i></div></div>'
    )


def _what_to_do(study: StudyReader) -> str:
    """What a reader of an unfinished study can do: wait for its build, or start it."""
    if is_locked(study):
        return "A build is running. This page fills in by itself."
    return (
        "No build is running. Start it on the page Jobs, or by "
        f"<code>dataloupe build {escape(str(study.root))}</code>; this page then fills in by "
        "itself."
    )


def _entry(step: Progress, current: bool) -> str:
    state = "done" if step.complete else "working" if current else "waiting"
    mark = {"done": "✓", "working": "●", "waiting": "○"}[state]
    count = f"{step.done:,} of {step.total:,}" if step.total > 1 else state
    share = 100 * step.done / max(1, step.total)
    track = f'<div class="dl-track"><i style="width:{share:.0f}%"></i></div>' if current else ""
    return (
        f'<li data-state="{state}"><span aria-hidden="true">{mark}</span>'
        f"<span>{escape(TITLES[step.stage])}</span><span>{count}</span>{track}</li>"
    )
