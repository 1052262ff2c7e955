"""Compare: two learning algorithms, one of them perhaps uploaded: what each does that the other
does not, on which training data that rests, and whether a hypothesis about it is true."""

from __future__ import annotations

import contextlib
from functools import partial

import streamlit as st

from dashboard.location import Location, go, read_location
from dashboard.names import plain, short
from dashboard.parts.compare.comparison_download import comparison_export
from dashboard.parts.compare.distinguishing_directions import directions
from dashboard.parts.compare.hypothesis_test import hypothesis
from dashboard.parts.compare.quick_report import quick_report
from dashboard.parts.compare.side_by_side import side_by_side
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
    OTHER,
    PANES,
    Query,
    comparison_of,
    methods_of,
    name_of,
    read_query,
)
from dashboard.read.studies import examples, open_study
from dashboard.read.upload_trials import report
from engine.exchange.uploads.keeping import expire
from engine.running.jobs.queue import Job, jobs
from engine.store.errors import DataloupeError
from engine.store.layout import TRAK
from engine.study.methods import method_title
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
with contextlib.suppress(OSError):  # a study that cannot be written keeps what it has
    expire(study)
asked = read_query(study)
uploads = study.uploads


def choose(a: str, b: str) -> None:
    """Which two algorithms, and where there is a choice, by which scores."""
    names = list(study.algorithms)
    with st.container(horizontal=True, vertical_alignment="bottom", key="two"):
        for key, value, method in (("a", a, asked.method_a), ("b", b, asked.method_b)):
            st.session_state[f"compared_{key}"] = value
            st.selectbox(
                f"Algorithm {key.upper()}",
                names,
                format_func=partial(name_of, study),
                key=f"compared_{key}",
                on_change=chosen,
                args=(key, a, b),
                width=280,
            )
            methods = methods_of(study, value)
            if len(methods) > 1:
                st.session_state[f"by_{key}"] = method
                st.selectbox(
                    f"Scores of {key.upper()}",
                    methods,
                    format_func=partial(method_title, study, value),
                    key=f"by_{key}",
                    on_change=chosen_scores,
                    args=(key, b if key == "a" else a),
                    width=200,
                )
        st.button(
            "Swap",
            icon=":material/swap_horiz:",
            key="swap",
            on_click=show,
            kwargs={"a": b, "b": a, "by_a": asked.method_b, "by_b": asked.method_a},
        )


def show(**parameters: str | None) -> None:
    """Callback: another comparison, from its first direction."""
    go(**parameters, direction=None, side=None)


def chosen(key: str, a: str, b: str) -> None:
    """Callback: another algorithm on one side; the same on both sides swaps them."""
    value = st.session_state[f"compared_{key}"]
    other = b if key == "a" else a
    both = {"a": a, "b": b, key: value}
    if value == other:
        both = {"a": b, "b": a}
    show(**both, by_a=None, by_b=None)


def chosen_scores(key: str, other: str) -> None:
    """Callback: other scores of one side; the other side goes along if it has them, for what two
    methods say differs of itself."""
    method = st.session_state[f"by_{key}"]
    show(**{f"by_{key}": method})
    if method in methods_of(study, other):
        go(**{f"by_{OTHER[key]}": method})


def latest(wanted: Query) -> Job | None:
    """The newest job that compares these two, by these scores."""

    def compared(job: Job) -> tuple[str, ...]:
        given = job.parameters
        return given["a"], given["b"], given.get("method_a", TRAK), given.get("method_b", TRAK)

    both = wanted.a, wanted.b, wanted.method_a, wanted.method_b
    found = (
        one for one in jobs(study.root, newest=100) if one.kind == KIND and compared(one) == both
    )
    return next(found, None)


def not_compared(b: str) -> None:
    """The way to a comparison: its button, or how far its job is."""
    job = latest(asked)
    if job is not None and job.status != "done":
        job_panel(study, job.id)
        if job.active:
            return
    heading("What they do differently")
    aside(
        "Training data that one relies on and the other does not: the distinguishing directions of "
        "their attributions. An upload's are computed once and kept; that takes as long as for the "
        "study's own models."
    )
    if asked.method_a != asked.method_b:
        aside(
            "Two methods are chosen, which differ of themselves: what is found may be theirs and "
            "not the algorithms'."
        )
    methods = {"method_a": asked.method_a, "method_b": asked.method_b}
    job_button(
        "Compare their training data",
        study,
        KIND,
        {"a": asked.a, "b": b, **methods},
        f"Compare {name_of(study, asked.a)} and {name_of(study, b)}",
        icon=":material/difference:",
        type="primary",
        key="compare",
    )
    if told := pop_message(KIND):
        warning([told])


def quick(a: str, b: str) -> None:
    """The quick report of what was uploaded, beside the other."""
    upload = uploads.get(b) or uploads.get(a)
    if upload is None:
        return
    against = a if upload.id == b else b
    if against in uploads and not has_predictions(study, against):
        aside(f"{short(name_of(study, against))} has no predictions yet to stand beside.")
        return
    heading(f"{short(upload.name)} at a glance")
    aside(f"{checkpoints_words(upload)}. Fed with {upload.preprocessing}")
    try:
        found = report(study, upload, against)
    except DataloupeError as error:
        notice("This upload does not run", str(error), kind="error")
        return
    tests = examples(study, "test", against)
    quick_report(study, found, upload.name, name_of(study, against), tests, location)


def panes(study: StudyReader, here: Location) -> None:
    """What was found, in parts."""
    now: Query = read_query(study)
    about = comparison_of(study, now)
    if about is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="panes"):
        choice("Show", PANES, now.pane, "pane", FOUND, label_visibility="collapsed")
        st.space("stretch")
        comparison_export(study, about)
    if about["indicative"]:
        fewest = ENOUGH - about["wanted"]
        aside(
            f"Indicative: one side has {fewest} checkpoint{'s' if fewest != 1 else ''}; "
            f"{about['wanted']} more would do."
        )
    if now.pane == HYPOTHESIS:
        found = about["directions"][now.key]
        hypothesis(study, about, found[min(now.number, len(found) - 1)] if found else None)
    elif now.pane == EXAMPLE:
        side_by_side(study, about, here)
    else:
        directions(study, about, now, here)


# --- the page ----------------------------------------------------------------------------------

with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("Compare", "two learning algorithms: what each relies on and the other does not"))
    st.space("stretch")
    copy_link("copy")
if asked.problems:
    warning(["This link says something that cannot be here.", *asked.problems])
if asked.b is None:
    notice(
        "Which model shall be compared?",
        "Upload one: its checkpoints, trained on the same data in another way. Or describe a "
        "second learning algorithm in study.toml and build it.",
    )
count = f" ({len(uploads):,})" if uploads else ""
with st.expander(
    f"Upload a model, or look through what was uploaded{count}",
    icon=":material/upload:",
    expanded=asked.b is None or "upload_message" in st.session_state,
    key="uploads",
):
    upload_form(study)
    upload_list(study)
if asked.b is None:
    st.stop()

choose(asked.a, asked.b)
if comparison_of(study, asked) is None:
    not_compared(asked.b)
    quick(asked.a, asked.b)
else:
    part(location, panes)
    if upload := uploads.get(asked.b) or uploads.get(asked.a):
        with st.expander(
            f"{plain(upload.name)} at a glance", key="glance", on_change="rerun"
        ) as glance:
            if glance.open:
                quick(asked.a, asked.b)
