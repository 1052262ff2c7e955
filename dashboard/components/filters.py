"""The filters of the slice, each with its counts, and the order it is shown in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from dashboard.data import Examples, counts
from dashboard.location import NEED_SCORES, SORTS, Location, go, keep, margin_text
from engine.study import Study

ANY = "Any"


def filters(study: Study, location: Location, examples: Examples) -> None:
    """Show the filters; what they choose is in the URL, and so in the next run's `location`."""
    chosen = location.slice
    scored = location.method is not None
    with st.container(horizontal=True, vertical_alignment="top", key="filters"):
        _class_filter("True class", "label", "label", chosen.label, study, location, examples)
        if not examples.has_predictions:
            return
        _class_filter(
            "Predicted class", "predicted", "predicted", chosen.predicted, study, location, examples
        )
        found = counts(examples, "correct", chosen.filters())
        numbers = {"correct": found.get(True, 0), "wrong": found.get(False, 0)}
        numbers[ANY] = sum(numbers.values())
        st.session_state["result"] = chosen.result or ANY
        st.segmented_control(
            "Prediction",
            [ANY, "correct", "wrong"],
            format_func=_with_count(numbers, {ANY: "Any", "correct": "Correct", "wrong": "Wrong"}),
            key="result",
            required=True,
            on_change=keep,
            args=("result", ANY, ("page",)),
        )
        _margin_filter(location, examples)
        orders = [name for name in SORTS if name not in NEED_SCORES or scored]
        st.session_state["sort"] = chosen.sort or ANY
        st.selectbox(
            "Order",
            [ANY, *orders],
            format_func=lambda name: SORTS.get(name, "As in the data"),
            key="sort",
            on_change=keep,
            args=("sort", ANY, ("page",)),
            width=210,
        )


def _margin_filter(location: Location, examples: Examples) -> None:
    margins = examples.table["margin"].to_numpy()
    ends = float(np.floor(margins.min())), float(np.ceil(margins.max()))
    if ends[0] == ends[1]:
        ends = ends[0], ends[1] + 1
    least, largest = np.clip(location.slice.margin or ends, *ends)
    st.session_state["margins"] = float(least), float(largest)

    def changed() -> None:
        chosen = st.session_state["margins"]
        go(margin=None if chosen == ends else margin_text(chosen), page=None)

    st.slider("Margin", *ends, step=0.1, key="margins", on_change=changed, format="%.1f", width=240)


def _class_filter(
    title: str,
    key: str,
    column: str,
    value: str | None,
    study: Study,
    location: Location,
    examples: Examples,
) -> None:
    found = counts(examples, column, location.slice.filters())
    st.session_state[key] = value
    st.selectbox(
        title,
        study.dataset.classes,
        index=None,
        placeholder=f"Any class ({sum(found.values()):,})",
        format_func=_with_count(found, {}),
        key=key,
        on_change=keep,
        args=(key, None, ("page",)),
        width=250,
    )


def _with_count(numbers: dict[Any, int], names: dict[Any, str]) -> Callable[[Any], str]:
    def words(option: Any) -> str:
        name = names.get(option, str(option))
        name = name if len(name) <= 80 else name[:79] + "…"
        return f"{name} ({numbers.get(option, 0):,})"

    return words
