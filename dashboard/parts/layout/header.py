"""The header of every page: workspaces, jobs and the study; pages, algorithm and method.

The links are plain HTML. frame.js opens them without loading the page again and adds the state of
the view at that moment, so that a selection made since the header was drawn goes along.
"""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

import streamlit as st

from dashboard.location import Location, go, keep
from dashboard.parts.jobs.drawer import drawer
from dashboard.parts.layout.messages import warning
from dashboard.parts.layout.sign_in import account
from dashboard.read.studies import badge
from dashboard.workspaces import WORKSPACES, Entry, Workspace
from engine.store.quantities import LDS
from engine.study.methods import method_choice, ranked_methods
from engine.study.output_names import resolve_output
from engine.study.reader import StudyReader

WIDTH = 190
"""Of a choice in the second row, in pixels."""


def header(study: StudyReader, location: Location, workspace: Workspace, page: Entry) -> None:
    """Show the two rows: workspaces, jobs and study; then the pages and what scores are shown."""
    query = urlencode(location.state())
    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        st.html(_bar(study, workspace, page, query))
        with st.container(width="content"):
            drawer(study)
        account()
    with st.container(horizontal=True, vertical_alignment="center", key="subheader"):
        st.html(_pages(workspace, page, query) or _sizes(study))
        _choices(study, location, page)


def problems(location: Location) -> None:
    """Warn about a link with invalid parameters, or one that was made for other data."""
    if location.problems:
        warning(["This link has invalid parameters.", *location.problems])
    if location.foreign is not None:
        warning(
            [
                "This link was made for other data, so it may show something else here. Its "
                f"fingerprint is {location.foreign[:16]}; this study's is {location.study}."
            ]
        )
        st.button("Use it here anyway", on_click=go, kwargs={"study": location.study})


def _link(page: Entry, query: str, current: bool, text: str) -> str:
    here = ' aria-current="page"' if current else ""
    address = escape(f"./{page.address}?{query}")
    return f'<a href="{address}" title="{escape(page.help)}"{here}>{escape(text)}</a>'


def _bar(study: StudyReader, workspace: Workspace, page: Entry, query: str) -> str:
    """The first row; on a phone, a menu of all pages takes the place of the workspaces."""
    spaces = "".join(_link(one.pages[0], query, one is workspace, one.title) for one in WORKSPACES)
    menu = "".join(
        f"<p>{escape(one.title)}</p>"
        + "".join(_link(entry, query, entry is page, entry.title) for entry in one.pages)
        for one in WORKSPACES
    )
    name = escape(study.spec.name)
    return (
        '<div class="dl-bar"><button class="dl-skip" type="button">Skip to content</button>'
        f'<a class="dl-logo" href="{escape("./?" + query)}"  '
        'aria-label="Dataloupe: Overview"></a>'
        f'<nav class="dl-spaces" aria-label="Workspaces">{spaces}</nav>'
        f'<details class="dl-menu"><summary>{escape(workspace.title)}</summary>'
        f'<nav aria-label="All pages">{menu}</nav></details>'
        '<button class="dl-find" type="button" aria-keyshortcuts="Control+K" '
        'title="Find a page, an example, a class or a saved set">Find<kbd>Ctrl K</kbd></button>'
        f'<span class="dl-study" title="{name}">{name}</span></div>'
    )


def _pages(workspace: Workspace, page: Entry, query: str) -> str:
    """The pages of the workspace; none where there is but one."""
    if len(workspace.pages) < 2:
        return ""
    links = "".join(_link(one, query, one is page, one.title) for one in workspace.pages)
    return f'<nav class="dl-pages" aria-label="{escape(workspace.title)}">{links}</nav>'


def _sizes(study: StudyReader) -> str:
    """How large the study is, in place of the links to pages."""
    if not study.has_data:
        return '<span class="dl-by">nothing is computed yet</span>'
    dataset = study.dataset
    facts = [f"{dataset.n_train:,} training examples", f"{dataset.n_test:,} test examples"]
    facts += [f"{len(dataset.classes):,} classes"] if dataset.classes else []
    facts += [f"learning algorithm {name}" for name in [*study.spec.algorithms][:1]]
    return f'<span class="dl-by">{escape(" · ".join(facts))}</span>'


def _choices(study: StudyReader, location: Location, page: Entry) -> None:
    """The learning algorithm, the method and the output of the scores."""
    algorithms = {name: name for name in study.spec.algorithms}
    algorithms |= {id_: one.name for id_, one in study.uploads.items()}
    if len(algorithms) > 1:
        st.session_state["algorithm"] = location.algorithm
        st.selectbox(
            "Learning algorithm",
            list(algorithms),
            format_func=algorithms.__getitem__,
            key="algorithm",
            on_change=keep,
            args=("algorithm", None, ("method",)),
            label_visibility="collapsed",
            width=WIDTH,
        )
    methods = ranked_methods(study, location.algorithm) if study.has_data else []
    if page.method:
        # This page computes its scores live, by one method, whatever is chosen elsewhere.
        st.html(f'<span class="dl-by">scores by {escape(page.method)}</span>', width="content")
    elif len(methods) > 1:
        st.session_state["method"] = location.method
        st.selectbox(
            "Method",
            methods,
            format_func=lambda name: method_choice(study, location.algorithm, name),
            key="method",
            on_change=keep,
            args=("method",),
            label_visibility="collapsed",
            width=WIDTH,
        )
    if location.output is not None:
        title = resolve_output(study, location.output).title
        st.button(
            f"Output: {title}",
            icon=":material/close:",
            key="output_default",
            help="Back to the default output",
            on_click=go,
            kwargs={"output": None},
        )
    if location.method is not None and not page.method:
        st.html(_trust(study, location), width="content")


def _trust(study: StudyReader, location: Location) -> str:
    """How good the scores are, in a few characters; it opens Quality."""
    assert location.method is not None
    found = badge(study, location.algorithm, location.method)
    if found.lds is None or found.lds_low is None:
        grade, text = "unknown", "not measured"
    else:
        grade = "good" if found.lds_low > 0 else "chance"
        text = f"LDS {LDS.text(found.lds)}" if grade == "good" else "no better than chance"
    words = f"Quality of the scores by {found.method}: {text}"
    href = escape("./quality?" + urlencode(location.state()))
    return (
        f'<a class="dl-trust" data-grade="{grade}" href="{href}" title="{escape(words)}" '
        f'aria-label="{escape(words)}">{escape(text)}</a>'
    )
