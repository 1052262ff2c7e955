"""The location of a view: everything needed to show it again, kept only in the URL.

Widgets take their values from the URL before they are drawn, and write changes back to it in their
callback (`keep`). So a link, a reload and the browser's Back button all restore the same view.
Streamlit's own `bind="query-params"` drops parameters that a different page has bound, but a slice
must survive the step from Explore to Explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from dashboard.slice_parameters import (
    FORMER,
    PARAMETERS,
    Slice,
    as_far_as_known,
    read_rows,
    read_slice,
    rows_text,
)
from engine.store.errors import DataloupeError, UnknownName
from engine.store.layout import Split
from engine.study.capabilities import missing
from engine.study.groups import group_columns
from engine.study.methods import ranked_methods
from engine.study.models import prediction_columns
from engine.study.names import resolve_algorithm, resolve_method
from engine.study.output_names import resolve_output
from engine.study.reader import StudyReader
from engine.study.text_search import has_texts

OVERVIEW = "views/overview.py"
EXPLORE = "views/explore.py"
EXPLAIN = "views/explain.py"
TRAINING = "views/training.py"
TRAINING_SET = "views/training_set.py"
BRITTLE = "views/brittle.py"
COMPARE = "views/compare.py"
LIVE = "views/live.py"
MAP = "views/map.py"
WHAT_IF = "views/what_if.py"
UNLEARN = "views/unlearn.py"
QUALITY = "views/quality.py"
JOBS = "views/jobs.py"
PROVENANCE = "views/provenance.py"
SELECTED: dict[Split, str] = {"test": "selected", "train": "selected_train"}
"""The parameters with the selected examples of each split."""
DEFAULT_K = 12
MAX_K = 500
LARGE, SMALL = "large", "small"
SIZES = {LARGE: "Large", SMALL: "Small"}
"""Thumbnail sizes of Explore, which set how many fit on a page."""
INFLUENTIAL, SIMILAR, BOTH, WORDS = "influential", "similar", "both", "words"
SHOWS = {INFLUENTIAL: "Influential", SIMILAR: "Similar", BOTH: "Both", WORDS: "Words"}
"""Training examples that Explain can show; `words` only where examples have texts."""

_DRAWN = "drawn address"
"""Where the session keeps the parameters of the view that was drawn last."""
STATE = (
    *("study", "algorithm", "method", *PARAMETERS, FORMER, "output", *SELECTED.values(), "set"),
    *("test", "train", "show", "k", "size"),
)
"""The parameters that go along to every page."""


@dataclass(frozen=True)
class Location:
    """The URL's parameters, checked against the study.

    Attributes:
        study: Short fingerprint of the data; None before the data are built.
        foreign: The fingerprint in the URL if it differs from the study's.
        method: Method of the scores shown; None before there are any.
        size: One of SIZES.
        selected: Rows of selected test examples, ascending.
        selected_train: Rows of selected training examples, ascending.
        set: Key of the removal set; unchecked.
        test: The explained test example: its id, or its row as #17; unchecked.
        train: The training example shown; unchecked.
        show: One of SHOWS.
        problems: Messages about invalid parameters.
        output: Name of the explained output; None for the default.
    """

    study: str | None
    foreign: str | None
    algorithm: str
    method: str | None
    slice: Slice
    page: int
    size: str
    selected: tuple[int, ...]
    test: str | None
    train: str | None
    show: str
    k: int
    problems: tuple[str, ...]
    output: str | None = None
    selected_train: tuple[int, ...] = ()
    set: str | None = None

    def is_on_page_of(self, other: Location) -> bool:
        """Whether the two differ only in parameters that a fragment of the page can redraw."""

        def page(one: Location) -> Location:
            own = replace(one, page=1, size=LARGE, selected=(), show=INFLUENTIAL)
            own = replace(own, selected_train=())
            return replace(own, k=DEFAULT_K, problems=())

        return page(self) == page(other)

    def of_slice(self, slice: Slice) -> Location:
        """The same location with a different slice."""
        return replace(self, slice=slice)

    def without_selection(self) -> Location:
        """The same location for the links of many cards: frame.js adds what is selected."""
        return replace(self, selected=(), selected_train=())

    def parameters(self, **changes: str | int) -> dict[str, str]:
        """The URL's parameters for this view, with changes."""
        found: dict[str, str | int] = {}
        if self.study is not None:
            found["study"] = self.study
        found["algorithm"] = self.algorithm
        if self.method is not None:
            found["method"] = self.method
        found |= self.slice.parameters()
        if self.output is not None:
            found["output"] = self.output
        if self.show != INFLUENTIAL:
            found["show"] = self.show
        if self.k != DEFAULT_K:
            found["k"] = self.k
        if self.selected:
            found[SELECTED["test"]] = rows_text(self.selected)
        if self.selected_train:
            found[SELECTED["train"]] = rows_text(self.selected_train)
        if self.set is not None:
            found["set"] = self.set
        return {name: str(value) for name, value in (found | changes).items()}

    def state(self) -> dict[str, str]:
        """What goes along to every page: the parameters, and the examples that are open."""
        found = self.parameters()
        for name, id_ in (("test", self.test), ("train", self.train)):
            if id_ is not None:
                found[name] = id_
        return found | ({} if self.size == LARGE else {"size": self.size})


def read_location(study: StudyReader, given: Mapping[str, str] | None = None) -> Location:
    """Read the URL and check it against the study. Invalid values are reported in `problems`.

    Args:
        given: The URL's parameters; None: those of the page that is drawn.
    """
    query = st.query_params.to_dict() if given is None else given
    problems: list[str] = []

    algorithm = resolve_algorithm(study)
    try:
        algorithm = resolve_algorithm(study, query.get("algorithm"))
    except UnknownName as error:
        name = _short(query["algorithm"])
        problems.append(f"This study has no learning algorithm “{name}”.{error.hint}")

    if not study.has_data:
        return Location(
            study=None,
            foreign=None,
            algorithm=algorithm,
            method=None,
            slice=Slice(),
            page=1,
            size=LARGE,
            selected=(),
            test=query.get("test"),
            train=query.get("train"),
            show=INFLUENTIAL,
            k=DEFAULT_K,
            problems=(),
        )

    method = None
    if ranked_methods(study, algorithm):
        method = resolve_method(study, algorithm)
        try:
            method = resolve_method(study, algorithm, query.get("method"))
        except UnknownName as error:
            name = _short(query["method"])
            problems.append(f"There are no scores by the method “{name}” here.{error.hint}")

    show = query.get("show", INFLUENTIAL)
    shows = [name for name in SHOWS if name != WORDS or has_texts(study)]
    if show not in shows:
        problems.append(f"show must be one of {', '.join(shows)}, not “{_short(show)}”.")
        show = INFLUENTIAL
    output = query.get("output")
    try:
        output = None if output is None else resolve_output(study, output).name
    except DataloupeError as error:
        problems.append(str(error))
        output = None
    size = query.get("size", LARGE)
    if size not in SIZES:
        problems.append(f"size must be {' or '.join(SIZES)}, not “{_short(size)}”.")
        size = LARGE
    dataset = study.dataset
    slice = read_slice(query, dataset, problems, group_columns(study))
    columns = prediction_columns(study, algorithm)
    if slice.result is not None and columns and "correct" not in columns:
        problems.append(f"The filter by result is ignored. {missing(study, 'outcomes')}")
    slice = as_far_as_known(slice, columns, method is not None)
    if not has_texts(study):
        slice = replace(slice, text=None, length=None)

    def number(name: str, default: int, largest: int) -> int:
        text = query.get(name, str(default))
        if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= largest:
            return int(text)
        problems.append(
            f"{name} must be 1 to {largest:,}, not “{_short(text)}”; showing {default}."
        )
        return default

    largest_k = largest_k_of(study)
    fingerprint = dataset.fingerprint[:8]
    linked_study = query.get("study", fingerprint)
    return Location(
        study=fingerprint,
        foreign=linked_study if linked_study != fingerprint else None,
        algorithm=algorithm,
        method=method,
        slice=slice,
        page=number("page", 1, max(1, dataset.n_test, dataset.n_train)),
        size=size,
        selected=read_rows(SELECTED["test"], query, dataset.n_test, problems) or (),
        selected_train=read_rows(SELECTED["train"], query, dataset.n_train, problems) or (),
        set=query.get("set"),
        test=query.get("test"),
        train=query.get("train"),
        show=show,
        k=number("k", min(DEFAULT_K, largest_k), largest_k),
        problems=tuple(problems),
        output=output,
    )


def largest_k_of(study: StudyReader) -> int:
    """The largest number of training examples per side."""
    return max(1, min(MAX_K, study.dataset.n_train))


def announce(location: Location) -> None:
    """Write the study, algorithm and method to the URL, so that a copied link is complete."""
    st.session_state[_DRAWN] = st.query_params.to_dict()
    if location.study is None:
        return
    found = {
        "study": location.study,
        "algorithm": location.algorithm,
        "method": location.method,
    }
    go(**{name: value for name, value in found.items() if name not in st.query_params})


def keep(
    name: str, default: Any = None, resets: tuple[str, ...] = (), key: str | None = None
) -> None:
    """Callback of a widget: write its value to the URL and remove parameters it invalidates.

    Args:
        name: Name of the URL parameter.
        default: The value that the URL omits.
        resets: Parameters to remove.
        key: Key of the widget, if it is not `name`.
    """
    value = st.session_state[key or name]
    choose(**{name: None if value == default else value}, **dict.fromkeys(resets))


def choose(**parameters: str | int | None) -> None:
    """Callback of a control with a value: `go`, unless the browser came here by its history.

    The browser then still shows the value of the view that it left, which nobody chose.
    """
    here = st.query_params.to_dict()
    if st.session_state.get(_DRAWN, here) == here:
        go(**parameters)


def go(**parameters: str | int | None) -> None:
    """Callback of a button: change the URL on this page. None removes a parameter.

    All of it is one change, and no change if the URL says so already: the browser makes at most one
    entry of its history of a click (frame.js).
    """
    before = st.query_params.to_dict()
    after = before | {name: str(one) for name, one in parameters.items() if one is not None}
    after = {name: one for name, one in after.items() if parameters.get(name, one) is not None}
    if after != before:
        st.query_params.from_dict(after)
        st.session_state[_DRAWN] = after


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
