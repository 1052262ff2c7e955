"""Ways to choose training examples to remove: by class, filter, supporters or ids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from dashboard.components.notice import warning
from dashboard.data import Examples, examples, matching, weights
from dashboard.location import MAP, Location, go
from engine.errors import DataloupeError
from engine.removal_sets import keep_set, parse_examples
from engine.study import Study

CLASS, FILTER, SUPPORTERS, IDS = "class", "filter", "supporters", "ids"
WAYS = {CLASS: "A class", FILTER: "A filter", SUPPORTERS: "Supporters", IDS: "Ids"}
INFLUENCE, RANDOM = "influence", "random"
ORDERS = {INFLUENCE: "Most influential first", RANDOM: "At random"}
LONGEST_LIST = 200_000


def removal_choice(study: Study, location: Location, training: Examples, kind: str) -> None:
    """Controls that choose a set; the button keeps it and asks about it."""
    way = st.segmented_control(
        "Choose by",
        list(WAYS),
        format_func=WAYS.__getitem__,
        default=CLASS,
        required=True,
        key="by",
    )
    forms: dict[str, Callable[[], tuple[np.ndarray, str]]] = {
        CLASS: lambda: _by_class(study, location, training),
        FILTER: lambda: _by_filter(study, location, training, kind),
        SUPPORTERS: lambda: _by_supporters(study, location, kind),
        IDS: lambda: _by_ids(study, kind),
    }
    rows, words = forms[way]()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            f"What if these {len(rows):,} were removed?" if len(rows) else "What if …",
            icon=":material/content_cut:",
            key="ask",
            disabled=not len(rows),
            on_click=_ask,
            args=(study, rows, words),
        )
        st.page_link(MAP, label="Or draw a lasso on the Map", query_params=location.parameters())
    if told := st.session_state.pop("removal_told", None):
        warning([told])


def _ask(study: Study, rows: np.ndarray, words: str) -> None:
    try:
        go(set=keep_set(study, rows.tolist(), words).key)
    except DataloupeError as error:
        st.session_state["removal_told"] = str(error)


def _by_class(study: Study, location: Location, training: Examples) -> tuple[np.ndarray, str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.selectbox("Class", training.classes, key="removed_class", width=230)
        members = matching(training, {"label": label})
        return _some(study, location, members, f"labelled {label}")


def _by_filter(
    study: Study, location: Location, training: Examples, kind: str
) -> tuple[np.ndarray, str]:
    filters: dict[str, object] = {}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.selectbox(
            "Label", training.classes, index=None, placeholder="Any", key="f_label", width=200
        )
        if label is not None:
            filters["label"] = label
        if training.has_predictions:
            predicted = st.selectbox(
                "Predicted", training.classes, index=None, placeholder="Any", key="f_to", width=200
            )
            if predicted is not None:
                filters["predicted"] = predicted
            margins = training.table["margin"].to_numpy()
            ends = float(np.floor(margins.min())), float(np.ceil(margins.max()))
            ends = ends if ends[0] < ends[1] else (ends[0], ends[0] + 1)
            chosen = st.slider("Margin", *ends, ends, step=0.1, key="f_margin", width=230)
            if chosen != ends:
                filters["margin"] = chosen
        part = st.text_input("Id contains", key="f_id", max_chars=200, width=180).strip()
        if part:
            filters["id"] = part
        rows = matching(training, filters) if filters else np.empty(0, np.int64)
        words = ", ".join(_told(name, value) for name, value in filters.items())
        if not filters:
            st.html(f'<p class="dl-aside">Narrow it down: all {kind}s cannot be removed.</p>')
            return rows, ""
        return _some(study, location, rows, words)


def _told(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{name} {value[0]:g} to {value[1]:g}"
    return f"{name} {value}"


def _some(
    study: Study, location: Location, members: np.ndarray, words: str
) -> tuple[np.ndarray, str]:
    """How many of the members, and which."""
    if not len(members):
        st.html('<p class="dl-aside">No training example is like this.</p>')
        return members, ""
    number = st.number_input(
        f"How many of {len(members):,}", 1, len(members), min(50, len(members)), width=150
    )
    orders = [INFLUENCE, RANDOM] if location.method is not None else [RANDOM]
    order = st.selectbox("Which", orders, format_func=ORDERS.__getitem__, key="which", width=210)
    if order == INFLUENCE and location.method is not None:
        total = weights(study, location.algorithm, location.method).total[members]
        chosen = members[np.argsort(-total, kind="stable")[:number]]
        return np.sort(chosen), f"{number:,} most influential of {len(members):,} {words}"
    seed = st.number_input("Seed", 0, 10**6, 0, key="random_seed", width=110)
    drawn = np.random.default_rng(int(seed)).permutation(members)[:number]
    return np.sort(drawn), f"{number:,} random of {len(members):,} {words} (seed {seed})"


def _by_supporters(study: Study, location: Location, kind: str) -> tuple[np.ndarray, str]:
    tests = examples(study, "test", location.algorithm)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        asked = st.text_input(
            f"Test {kind}, by id or row number",
            value=location.test or "",
            placeholder=str(tests.ids[0]),
            key="supporters_of",
            width=230,
        ).strip()
        most = min(500, study.dataset.n_train - 1)
        k = st.number_input("Strongest supporters", 1, most, min(12, most), width=180)
    row = tests.row_of(asked) if asked else None
    if row is None or location.method is None:
        if asked:
            warning([f"There is no test {kind} “{asked[:60]}”."])
        return np.empty(0, np.int64), ""
    rows = study.influences(row, int(k), location.algorithm, location.method)[0]
    words = f"{len(rows):,} strongest supporters of test {kind} {tests.ids[row]}"
    return np.sort(rows.astype(np.int64)), words


def _by_ids(study: Study, kind: str) -> tuple[np.ndarray, str]:
    text = st.text_area(
        f"Ids or row numbers of training {kind}s, with commas, spaces or lines between",
        key="pasted_ids",
        max_chars=LONGEST_LIST,
    )
    rows, unknown = parse_examples(study, text)
    if unknown:
        named = ", ".join(word[:40] for word in unknown[:8])
        more = f" and {len(unknown) - 8:,} others" if len(unknown) > 8 else ""
        warning([f"No training {kind} is called {named}{more}; left out."])
    return rows, f"{len(rows):,} named one by one"
