"""The header of every page: study, data, learning algorithm and method."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.location import Location, go, keep
from dashboard.parts.layout.messages import warning
from dashboard.parts.layout.running_job import working
from engine.study.methods import method_choice, ranked_methods
from engine.study.reader import StudyReader


def context(study: StudyReader, location: Location, own_method: str = "") -> None:
    """Show the header, and warn about a link with invalid parameters or for different data.

    Args:
        own_method: The method of a page that uses one alone; empty if it uses the chosen one.
    """
    facts = [f"<strong>{escape(study.spec.name)}</strong>"]
    if study.has_data:
        dataset = study.dataset
        facts += [
            f"<span>{dataset.n_train:,} training examples</span>",
            f"<span>{dataset.n_test:,} test examples</span>",
        ]
        if dataset.classes:
            facts.append(f"<span>{len(dataset.classes):,} classes</span>")
    algorithms = {name: name for name in study.spec.algorithms}
    algorithms |= {id_: one.name for id_, one in study.uploads.items()}
    if len(algorithms) == 1:
        facts.append(f"<span>learning algorithm {escape(location.algorithm)}</span>")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(f'<div class="dl-context">{"".join(facts)}</div>')
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
                width=220,
            )
        methods = ranked_methods(study, location.algorithm) if study.has_data else []
        if own_method:
            # This page computes its scores live, by one method, whatever is chosen elsewhere.
            by = f'<div class="dl-context"><span>scores by {escape(own_method)}</span></div>'
            st.html(by, width="content")
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
                width=220,
            )
        working(study)
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
