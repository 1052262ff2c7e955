"""The address of a view: everything needed to show it again, kept in the URL and nowhere else.

Widgets take their values from the URL before they are drawn, and write a change back to it in their
callback (`keep`). So a link, a reload and the browser's back button all restore the same view.
Streamlit's own `bind="query-params"` drops what another page has bound; a slice must outlive the
way from Explore to Explain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st

from engine.study import Study

OVERVIEW = "views/overview.py"
EXPLORE = "views/explore.py"
EXPLAIN = "views/explain.py"
TRAINING = "views/training.py"
PROVENANCE = "views/provenance.py"
DEFAULT_K = 12
MAX_K = 500
RESULTS = {"correct": True, "wrong": False}
INFLUENTIAL, SIMILAR, BOTH = "influential", "similar", "both"
SHOWS = {INFLUENTIAL: "Influential", SIMILAR: "Similar", BOTH: "Both"}
"""Which training examples Explain shows."""
SORTS = {
    "margin": "Lowest margin",
    "-margin": "Highest margin",
    "confidence": "Least confident",
    "support": "Strongest supporter",
    "oppose": "Strongest opposer",
}
"""Orders of a slice other than the data's."""
NEED_SCORES = ("support", "oppose")


@dataclass(frozen=True)
class Slice:
    """Which test examples are looked at, and in which order. None leaves a column free.

    Attributes:
        margin: Least and largest margin, both included.
        sort: One of SORTS; None is the order of the data.
    """

    label: str | None = None
    predicted: str | None = None
    result: str | None = None
    margin: tuple[float, float] | None = None
    sort: str | None = None

    def filters(self) -> dict[str, Any]:
        """Column of the examples' table → value, or (least, largest)."""
        wanted = {
            "label": self.label,
            "predicted": self.predicted,
            "correct": None if self.result is None else RESULTS[self.result],
            "margin": self.margin,
        }
        return {column: value for column, value in wanted.items() if value is not None}

    def parameters(self) -> dict[str, str]:
        """As they stand in the URL."""
        found = {
            "label": self.label,
            "predicted": self.predicted,
            "result": self.result,
            "margin": None if self.margin is None else margin_text(self.margin),
            "sort": self.sort,
        }
        return {name: value for name, value in found.items() if value is not None}

    def words(self) -> str:
        """As a person would say it; empty for all examples."""
        parts = []
        if self.label is not None:
            parts.append(f"true class {self.label}")
        if self.predicted is not None:
            parts.append(f"predicted {self.predicted}")
        if self.result is not None:
            parts.append(self.result)
        if self.margin is not None:
            least, largest = (f"{end:g}".replace("-", "−") for end in self.margin)
            parts.append(f"margin {least} to {largest}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Location:
    """What the URL says, as far as this study has it.

    Attributes:
        study: Short fingerprint of the data; None before the data are built.
        foreign: The fingerprint in the URL, where it is another than the study's.
        method: Of the scores shown; None before there are any.
        test: Id or row of the explained example, unchecked.
        train: Id or row of the training example looked at, unchecked.
        show: One of SHOWS.
        problems: What in the URL could not be, in words for the reader.
    """

    study: str | None
    foreign: str | None
    algorithm: str
    method: str | None
    slice: Slice
    page: int
    test: str | None
    train: str | None
    show: str
    k: int
    problems: tuple[str, ...]

    def of_slice(self, slice: Slice) -> Location:
        """The same with another slice."""
        return replace(self, slice=slice)

    def parameters(self, **changes: str | int) -> dict[str, str]:
        """The URL's parameters for this view, with changes."""
        found: dict[str, str | int] = {}
        if self.study is not None:
            found["study"] = self.study
        found["algorithm"] = self.algorithm
        if self.method is not None:
            found["method"] = self.method
        found |= self.slice.parameters()
        if self.show != INFLUENTIAL:
            found["show"] = self.show
        if self.k != DEFAULT_K:
            found["k"] = self.k
        return {name: str(value) for name, value in (found | changes).items()}


def read_location(study: Study) -> Location:
    """Read the URL and check it against the study. Nothing in it is trusted or dropped silently."""
    asked = st.query_params.to_dict()
    problems: list[str] = []

    algorithm = asked.get("algorithm", study.algorithm())
    if algorithm not in study.spec.algorithms:
        problems.append(f"This study has no learning algorithm “{_short(algorithm)}”.")
        algorithm = study.algorithm()

    if not study.has_data:
        return Location(
            study=None,
            foreign=None,
            algorithm=algorithm,
            method=None,
            slice=Slice(),
            page=1,
            test=asked.get("test"),
            train=asked.get("train"),
            show=INFLUENTIAL,
            k=DEFAULT_K,
            problems=(),
        )

    methods = study.methods(algorithm)
    method = asked.get("method")
    if method is not None and method not in methods:
        if methods:
            problems.append(f"There are no scores by the method “{_short(method)}” here.")
        method = None
    if method is None and methods:
        method = methods[0]

    def known_class(name: str) -> str | None:
        value = asked.get(name)
        if value is not None and value not in study.dataset.classes:
            problems.append(f"This study has no class “{_short(value)}”; that filter is left out.")
            return None
        return value

    result = asked.get("result")
    if result is not None and result not in RESULTS:
        problems.append(f"A result is correct or wrong, not “{_short(result)}”.")
        result = None
    sort = asked.get("sort")
    if sort is not None and sort not in SORTS:
        problems.append(f"Nothing can be sorted by “{_short(sort)}”.")
        sort = None
    show = asked.get("show", INFLUENTIAL)
    if show not in SHOWS:
        problems.append(f"Explain shows {', '.join(SHOWS)} ones, not “{_short(show)}”.")
        show = INFLUENTIAL
    margin = None
    if "margin" in asked:
        margin = _margin(asked["margin"])
        if margin is None:
            said = _short(asked["margin"])
            problems.append(f"A margin is two numbers, as in -2..3, not “{said}”.")
    label, predicted = known_class("label"), known_class("predicted")
    if not study.has_predictions(algorithm):
        predicted = result = margin = sort = None
    if sort in NEED_SCORES and method is None:
        sort = None

    def number(name: str, default: int, largest: int) -> int:
        text = asked.get(name, str(default))
        if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= largest:
            return int(text)
        problems.append(
            f"{name} must be 1 to {largest:,}, not “{_short(text)}”; showing {default}."
        )
        return default

    largest_k = largest_k_of(study)
    fingerprint = study.dataset.fingerprint[:8]
    asked_study = asked.get("study", fingerprint)
    return Location(
        study=fingerprint,
        foreign=asked_study if asked_study != fingerprint else None,
        algorithm=algorithm,
        method=method,
        slice=Slice(label, predicted, result, margin, sort),
        page=number("page", 1, max(1, study.dataset.n_test)),
        test=asked.get("test"),
        train=asked.get("train"),
        show=show,
        k=number("k", min(DEFAULT_K, largest_k), largest_k),
        problems=tuple(problems),
    )


def largest_k_of(study: Study) -> int:
    """The most training examples a side can show."""
    return max(1, min(MAX_K, study.dataset.n_train))


def announce(location: Location) -> None:
    """Keep what is looked at in the URL, so that whatever is copied from it stands alone."""
    if location.study is not None:
        found = {
            "study": location.study,
            "algorithm": location.algorithm,
            "method": location.method,
        }
        for name, value in found.items():
            if value is not None and name not in st.query_params:
                st.query_params[name] = value


def keep(
    name: str, default: Any = None, resets: tuple[str, ...] = (), key: str | None = None
) -> None:
    """Callback of a widget: write its value to the URL; drop what no longer fits.

    Args:
        name: Of the URL's parameter.
        default: The value that the URL leaves out.
        resets: Parameters that the change makes meaningless.
        key: Of the widget, where it is not `name`.
    """
    value = st.session_state[key or name]
    go(**{name: None if value == default else value}, **dict.fromkeys(resets))


def go(**parameters: str | int | None) -> None:
    """Callback of a button: change the URL on this page. None removes a parameter."""
    for name, value in parameters.items():
        if value is None:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def position_in_slice(rows: np.ndarray, row: int) -> tuple[int | None, int | None, int | None]:
    """(place from 1 of `row` among `rows`, the row before it, the row after it).

    `rows` may be in any order. A row that is not among them has its neighbours by number.
    """
    found = np.flatnonzero(rows == row)
    if len(found):
        place = int(found[0])
        before = int(rows[place - 1]) if place > 0 else None
        after = int(rows[place + 1]) if place + 1 < len(rows) else None
        return place + 1, before, after
    smaller, larger = rows[rows < row], rows[rows > row]
    return None, _or_none(smaller.max, smaller), _or_none(larger.min, larger)


def margin_text(margin: tuple[float, float]) -> str:
    """A range of margins as it stands in the URL."""
    return f"{margin[0]:g}..{margin[1]:g}"


def _margin(text: str) -> tuple[float, float] | None:
    try:
        least, largest = (float(end) for end in text.split(".."))
    except ValueError:
        return None
    return (least, largest) if -1e6 <= least <= largest <= 1e6 else None


def _or_none(extreme: Callable[[], Any], rows: np.ndarray) -> int | None:
    return int(extreme()) if len(rows) else None


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
