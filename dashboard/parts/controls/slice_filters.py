"""The filters of the slice, each with its counts, and the order of the slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st

from dashboard.location import Location, choose, go, keep
from dashboard.names import plain
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.text.text_filters import length_filter, words_filter
from dashboard.read.studies import Examples, counts, matching, mix_ups
from dashboard.slice_parameters import FORMER, LONGEST_SEARCH, SORTS, can_sort, range_text
from engine.store.quantities import MEASURES
from engine.study.groups import group_columns, group_members
from engine.study.reader import StudyReader

ANY = "Any"
MOST_PAIRS = 100
LONGEST = 60


def filters(study: StudyReader, location: Location, examples: Examples) -> None:
    """Show a button that opens the filters, and those that are active.

    Their values are in the URL, and so in the next run's `location`.
    """
    active = location.slice.words_of_filters(examples.output)
    with st.popover(
        f"Filters ({len(active)})" if active else "Filters",
        icon=":material/tune:",
        width="content",
        key="filters_button",
    ):
        _all_filters(study, location, examples)
    for name, words in active.items():
        st.button(
            plain(words),
            icon=":material/close:",
            key=f"without_{name}",
            help="Remove this filter",
            on_click=go,
            kwargs={name: None, "page": None} | ({FORMER: None} if name == "range" else {}),
        )


def _all_filters(study: StudyReader, location: Location, examples: Examples) -> None:
    chosen = location.slice
    named = {**examples.codes, **examples.members}
    with st.container(horizontal=True, vertical_alignment="top", key="filters"):
        if "label" in named:
            _class_filter("True class", "label", str(chosen.label or ""), location, examples)
        if "label" in examples.numbers:
            ends = chosen.label if isinstance(chosen.label, tuple) else None
            _range_filter("Label", "label", ends, location, examples)
        if examples.has_predictions:
            if "predicted" in named:
                _class_filter("Predicted class", "predicted", chosen.predicted, location, examples)
            if "predicted" in examples.codes:
                _pair_filter(location, examples)
            if examples.has_outcomes:
                _result_filter(location, examples)
            title = examples.output.capitalize()
            _range_filter(title, "output", chosen.output, location, examples)
            for name, measure in MEASURES.items():
                if name in examples.numbers:
                    ends = dict(chosen.measures).get(name)
                    _range_filter(measure.name.capitalize(), name, ends, location, examples)
        if columns := group_columns(study):
            _group_filter(study, columns, location, examples)
        if examples.has_texts:
            words_filter(location, with_count("Search texts", *_left("text", location, examples)))
            length_filter(location)
        _search(location, examples)


def order(location: Location, examples: Examples, orders: Mapping[str, str] | None = None) -> None:
    """Show the order of the slice, once there is more than one.

    Args:
        orders: Sort orders with their titles; None: those of test examples.
    """
    if orders is None:
        scored, titles = location.method is not None, order_titles(examples.output)
        known = [name for name in SORTS if can_sort(name, examples.columns, scored)]
        orders = {name: titles[name] for name in known} if examples.has_predictions else {}
    if not orders:
        return
    sort = location.slice.sort
    st.session_state["sort"] = sort if sort in orders else ANY
    st.selectbox(
        "Order",
        [ANY, *orders],
        format_func=lambda name: orders.get(name, "In the order of the data"),
        key="sort",
        on_change=keep,
        args=("sort", ANY, ("page",)),
        label_visibility="collapsed",
        width=210,
    )


def order_titles(output: str) -> dict[str, str]:
    """Sort orders with their titles.

    Args:
        output: Name of the model output.
    """
    return {name: title.format(output) for name, title in SORTS.items()}


def _class_filter(
    title: str, column: str, value: str | None, location: Location, examples: Examples
) -> None:
    found = counts(examples, column, location.slice.filters())
    of = counts(examples, column, {})
    words = {
        name: with_count(name, int(some), int(all_))
        for name, some, all_ in zip(examples.classes, found, of, strict=True)
    }
    st.session_state[column] = value or None
    st.selectbox(
        title,
        examples.classes,
        index=None,
        placeholder=with_count("Any class", *_left_of_all(column, location, examples)),
        format_func=words.__getitem__,
        key=column,
        on_change=keep,
        args=(column, None, ("page",)),
        width=230,
    )


def _pair_filter(location: Location, examples: Examples) -> None:
    """Show a filter for one cell of the confusion matrix, which sets both class filters."""
    chosen, classes = location.slice, examples.classes
    found, of = mix_ups(examples, chosen.filters()), mix_ups(examples, {})
    pairs = [(label, predicted) for label, predicted, _ in found[:MOST_PAIRS].tolist()]
    here = None
    if chosen.label is not None and chosen.predicted not in (None, chosen.label):
        here = classes.index(str(chosen.label)), classes.index(str(chosen.predicted))
        pairs = pairs if here in pairs else [here, *pairs]

    shown = [_numbers_of(pairs, some, len(classes)) for some in (found, of)]

    def words(pair: tuple[int, int]) -> str:
        names = " → ".join(_cut(classes[place], LONGEST // 2) for place in pair)
        return with_count(names, *(some.get(pair, 0) for some in shown))

    def changed() -> None:
        pair = st.session_state["pair"]
        label, predicted = (None, None) if pair is None else (classes[place] for place in pair)
        choose(label=label, predicted=predicted, page=None)

    st.session_state["pair"] = here
    st.selectbox(
        "Confusion",
        pairs,
        index=None,
        placeholder=with_count("Any", int(found[:, 2].sum()), int(of[:, 2].sum())),
        format_func=words,
        key="pair",
        on_change=changed,
        width=230,
    )


def _numbers_of(
    pairs: Sequence[tuple[int, int]], mix_ups: np.ndarray, classes: int
) -> dict[tuple[int, int], int]:
    """How often these classes are mixed up. Thousands of others may be, too."""
    keys, wanted = mix_ups[:, 0] * classes + mix_ups[:, 1], [a * classes + b for a, b in pairs]
    there = mix_ups[np.isin(keys, wanted)]
    return {(label, predicted): number for label, predicted, number in there.tolist()}


def _result_filter(location: Location, examples: Examples) -> None:
    found = counts(examples, "correct", location.slice.filters())
    of = counts(examples, "correct", {})
    words = {
        ANY: with_count("Any", int(found.sum()), int(of.sum())),
        "correct": with_count("Correct", int(found[1]), int(of[1])),
        "wrong": with_count("Wrong", int(found[0]), int(of[0])),
    }
    choice("Prediction", words, location.slice.result or ANY, "result", ANY, resets=("page",))


def _range_filter(
    title: str,
    name: str,
    value: tuple[float, float] | None,
    location: Location,
    examples: Examples,
) -> None:
    """Show a slider for a column of numbers."""
    ends, step, shown = slider_of(examples.numbers[name])
    least, largest = np.clip(value or ends, *ends)
    key = f"{name}_range"
    st.session_state[key] = float(least), float(largest)

    def changed() -> None:
        chosen = st.session_state[key]
        text = None if chosen == ends else range_text(chosen)
        changes = {"range": text, FORMER: None} if name == "output" else {name: text}
        choose(**changes, page=None)

    st.slider(
        with_count(title, *_left(name, location, examples)),
        *ends,
        step=step,
        key=key,
        on_change=changed,
        format=shown,
        width=230,
    )


def slider_of(values: np.ndarray) -> tuple[tuple[float, float], float, str]:
    """(ends, step, format) of a slider over these numbers, whatever their size."""
    values = values[np.isfinite(values)]
    least, largest = (float(end) for end in (values.min(), values.max()))
    span = (largest - least) or max(1.0, abs(least))
    if 2 <= span < 1000:
        return _ends_of(least, largest, 1.0), 0.1, "%.1f"
    unit = 10.0 ** (np.floor(np.log10(span)) - 1)
    step = float(unit / 10)
    decimals = max(0, -int(np.floor(np.log10(step))))
    return _ends_of(least, largest, float(unit)), step, f"%.{decimals}f"


def _ends_of(least: float, largest: float, unit: float) -> tuple[float, float]:
    """The ends in whole units, at least one apart."""
    low, high = float(np.floor(least / unit) * unit), float(np.ceil(largest / unit) * unit)
    return low, high if high > low else low + unit


def _group_filter(
    study: StudyReader,
    columns: Mapping[str, Sequence[str]],
    location: Location,
    examples: Examples,
) -> None:
    """Show a filter by the values of columns of the data that examples can be grouped by."""
    others = {name: one for name, one in location.slice.filters().items() if name != "group"}
    left = np.zeros(len(examples.table), bool)
    left[matching(examples, others)] = True
    words = {}
    split = "test" if examples.source is None else examples.source[1]
    for column in columns:
        for value, mine in group_members(study, split, column).items():
            count = int((mine & left).sum()), int(mine.sum())
            words[column, value] = with_count(f"{column}: {value}", *count)

    def changed() -> None:
        chosen = st.session_state["group"]
        choose(group=None if chosen is None else "=".join(chosen), page=None)

    chosen = location.slice.group
    st.session_state["group"] = chosen if chosen in words else None  # the other split may have it
    st.selectbox(
        "Group",
        list(words),
        index=None,
        placeholder=with_count("Any group", int(left.sum()), len(left)),
        format_func=words.__getitem__,
        key="group",
        on_change=changed,
        width=230,
    )


def _search(location: Location, examples: Examples) -> None:
    st.session_state["id"] = location.slice.id or ""
    has_files = "file" in examples.table and examples.table["file"].notna().any()
    st.text_input(
        with_count(
            "Search by id or file" if has_files else "Search by id",
            *_left("id", location, examples),
        ),
        placeholder=str(examples.ids[0]),
        key="id",
        max_chars=LONGEST_SEARCH,
        on_change=keep,
        args=("id", "", ("page",)),
        width=190,
    )


def _left_of_all(column: str, location: Location, examples: Examples) -> tuple[int, int]:
    """(number of rows under all filters but that of a column, number of all rows)."""
    others = {name: one for name, one in location.slice.filters().items() if name != column}
    return len(matching(examples, others)), len(examples.table)


def _left(name: str, location: Location, examples: Examples) -> tuple[int, int]:
    """(number of rows under all filters, number of rows under all other filters)."""
    chosen = location.slice.filters()
    others = {other: value for other, value in chosen.items() if other != name}
    return len(matching(examples, chosen)), len(matching(examples, others))


def with_count(name: str, some: int, of: int) -> str:
    """`Coat (47 / 412)`, or `Coat (412)` if no row is filtered out."""
    numbers = f"{some:,}" if some == of else f"{some:,} / {of:,}"
    return f"{_cut(name, LONGEST)} ({numbers})"


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
