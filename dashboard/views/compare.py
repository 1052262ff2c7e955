"""Compare two learning algorithms: what each relies on that the other does not.

One of them may be an upload. The page shows distinguishing directions of their attributions, and
tests a hypothesis about them.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

import streamlit as st

from dashboard.location import Location, go, read_location
from dashboard.names import plain, short
from dashboard.parts.compare.comparison_download import comparison_export
from dashboard.parts.compare.distinguishing_directions import choose_direction, directions
from dashboard.parts.compare.hypothesis_test import hypothesis
from dashboard.parts.compare.learned_by_one import learned_by_one
from dashboard.parts.compare.letters import letter
from dashboard.parts.compare.quick_report import quick_report
from dashboard.parts.compare.side_by_side import choose_example, side_by_side
from dashboard.parts.compare.upload_form import upload_form
from dashboard.parts.compare.upload_list import checkpoints_words, upload_list
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside, heading
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice, warning
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.read.comparisons import (
    EXAMPLE,
    FOUND,
    HYPOTHESIS,
    LEARNED,
    OTHER,
    PANES,
    Query,
    comparison_of,
    methods_of,
    name_of,
    opened,
    read_query,
)
from dashboard.read.studies import examples, open_study
from dashboard.read.upload_trials import report
from engine.exchange.uploads.keeping import expire
from engine.running.jobs.queue import Job, jobs
from engine.store.errors import DataloupeError
from engine.store.layout import TRAK
from engine.study.methods import method_choice
from engine.study.models import has_predictions
from engine.study.reader import StudyReader
from engine.study.uploads import ENOUGH

KIND = "compare"

study = open_study()
location = read_location(study)
if not study.has_data:
    building(
        "Models can be uploaded as soon as the data are read",
        lambda study: study.has_data,
        location.algorithm,
    )
    st.stop()
with contextlib.suppress(OSError):  # a read-only study keeps its uploads
    expire(study)
query = read_query(study)
uploads = study.uploads


def choose(a: str, b: str) -> None:
    """Controls for the two algorithms and, if there are several methods, their scores."""
    for key, value, method in (("a", a, query.method_a), ("b", b, query.method_b)):
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            st.html(letter(key), width="content")
            st.session_state[f"compared_{key}"] = value
            st.selectbox(
                f"Algorithm {key.upper()}",
                list(study.algorithms),
                format_func=partial(name_of, study),
                key=f"compared_{key}",
                on_change=chosen,
                args=(key, a, b),
                label_visibility="collapsed",
                width=210,
            )
            methods = methods_of(study, value)
            if len(methods) > 1:
                st.session_state[f"by_{key}"] = method
                st.selectbox(
                    f"Scores of {key.upper()}",
                    methods,
                    format_func=partial(method_choice, study, value),
                    key=f"by_{key}",
                    on_change=chosen_scores,
                    args=(key, b if key == "a" else a),
                    label_visibility="collapsed",
                    width=150,
                )
    st.button(
        "Swap",
        icon=":material/swap_horiz:",
        key="swap",
        on_click=show,
        kwargs={"a": b, "b": a, "by_a": query.method_b, "by_b": query.method_a},
    )


def show(**parameters: str | None) -> None:
    """Callback: show a different comparison, from its first direction."""
    go(**parameters, direction=None, side=None)


def chosen(key: str, a: str, b: str) -> None:
    """Callback: change the algorithm of one side; choosing the same on both sides swaps them."""
    value = st.session_state[f"compared_{key}"]
    other = b if key == "a" else a
    both = {"a": a, "b": b, key: value}
    if value == other:
        both = {"a": b, "b": a}
    show(**both, by_a=None, by_b=None)


def chosen_scores(key: str, other: str) -> None:
    """Callback: change the method of one side, and of the other if it has that method.

    Different methods give different attributions, whatever the algorithms do.
    """
    method = st.session_state[f"by_{key}"]
    show(**{f"by_{key}": method})
    if method in methods_of(study, other):
        go(**{f"by_{OTHER[key]}": method})


def latest(wanted: Query) -> Job | None:
    """The newest job that compares these two algorithms by these methods."""

    def compared(job: Job) -> tuple[str, ...]:
        given = job.parameters
        return given["a"], given["b"], given.get("method_a", TRAK), given.get("method_b", TRAK)

    both = wanted.a, wanted.b, wanted.method_a, wanted.method_b
    found = (
        one for one in jobs(study.root, newest=100) if one.kind == KIND and compared(one) == both
    )
    return next(found, None)


def not_compared(b: str) -> None:
    """A button that starts the comparison, or the progress of its job."""
    if reason := refusal(query.a, b):
        notice("This upload cannot be compared", reason, kind="error")
        return
    job = latest(query)
    if job is not None and job.status != "done":
        job_panel(study, job.id)
        if job.active:
            return
    if query.method_a != query.method_b:
        aside(
            "Two different methods are chosen: differences may come from the methods and not from "
            "the algorithms."
        )
    methods = {"method_a": query.method_a, "method_b": query.method_b}
    job_button(
        "Compare their training data",
        study,
        KIND,
        {"a": query.a, "b": b, **methods},
        f"Compare {name_of(study, query.a)} and {name_of(study, b)}",
        icon=":material/difference:",
        type="primary",
        key="compare",
        help="What one relies on and the other does not: the distinguishing directions of their "
        "attributions. Those of an upload are computed once and kept, which takes as long as for "
        "the study's own models.",
    )
    if message := pop_message(KIND):
        warning([message])


def refusal(a: str, b: str) -> str:
    """Why one of the two cannot be compared; empty if both can, as far as is known."""
    for one, other in ((a, b), (b, a)):
        if one in uploads:
            known = other not in uploads or has_predictions(study, other)
            against = other if known else next(iter(study.spec.algorithms))
            with contextlib.suppress(DataloupeError):  # `quick` says so
                if reason := report(study, uploads[one], against).refusal:
                    return f"{uploads[one].name}: {reason}"
    return ""


def quick(a: str, b: str) -> None:
    """The quick report of an upload, next to the other algorithm."""
    upload = uploads.get(b) or uploads.get(a)
    if upload is None:
        return
    against = a if upload.id == b else b
    if against in uploads and not has_predictions(study, against):
        aside(f"{short(name_of(study, against))} has no predictions to compare with yet.")
        return
    heading(f"{short(upload.name)} at a glance")
    aside(f"{checkpoints_words(upload)}. Preprocessing: {upload.preprocessing}")
    try:
        found = report(study, upload, against)
    except DataloupeError as error:
        notice("This upload does not run", str(error), kind="error")
        return
    tests = examples(study, "test", against)
    found = replace(found, warnings=[one for one in found.warnings if one not in upload.copies])
    letters = "ab" if upload.id == a else "ba"
    quick_report(study, found, upload.name, name_of(study, against), tests, location, letters)


def panes(study: StudyReader, here: Location) -> None:
    """The comparison, one pane at a time."""
    now: Query = read_query(study)
    about = comparison_of(study, now)
    if about is None:
        return
    now = opened(now, about)
    with st.container(horizontal=True, vertical_alignment="center", key="panes"):
        choice("Show", PANES, now.pane, "pane", FOUND, label_visibility="collapsed")
        if now.pane == FOUND:
            choose_direction(study, about, now)
        elif now.pane == EXAMPLE:
            choose_example(study, about, here)
        st.space("stretch")
        comparison_export(study, about)
    if about["indicative"]:
        fewest = ENOUGH - about["wanted"]
        aside(
            f"Indicative: one side has {fewest} checkpoint{'s' if fewest != 1 else ''}; "
            f"{about['wanted']} more would be enough."
        )
    if now.pane == HYPOTHESIS:
        found = about["directions"][now.key]
        hypothesis(study, about, found[min(now.number, len(found) - 1)] if found else None)
    elif now.pane == EXAMPLE:
        side_by_side(study, about, here)
    elif now.pane == LEARNED:
        learned_by_one(study, about, here)
    else:
        directions(study, about, now, here)


# --- the page ----------------------------------------------------------------------------------

with st.container(horizontal=True, vertical_alignment="center", key="two"):
    words = "what one learning algorithm relies on and another does not"
    st.html(title("Compare", words if query.b is None else ""), width="content")
    if query.b is not None:
        choose(query.a, query.b)
    st.space("stretch")
    if query.b is not None:
        with st.popover("Upload a model", icon=":material/upload:", width="content", key="new"):
            upload_form(study)
    copy_link("copy")
if query.problems:
    warning(["This link has invalid parameters.", *query.problems])
if query.b is None:
    notice(
        "Which model should be compared?",
        "Upload checkpoints that were trained on the same data in a different way, or add a "
        "second learning algorithm to study.toml and build it.",
    )
    upload_form(study)
    upload_list(study)
    st.stop()

if known := [copy for one in (query.a, query.b) if one in uploads for copy in uploads[one].copies]:
    warning(known)
if comparison_of(study, query) is None:
    not_compared(query.b)
    quick(query.a, query.b)
else:
    part(location, panes)
    if upload := uploads.get(query.b) or uploads.get(query.a):
        with st.expander(
            f"{plain(upload.name)} at a glance", key="glance", on_change="rerun"
        ) as glance:
            if glance.open:
                quick(query.a, query.b)
if uploads:
    with st.expander(f"Uploads ({len(uploads):,})", icon=":material/upload:", key="uploads"):
        upload_list(study)
