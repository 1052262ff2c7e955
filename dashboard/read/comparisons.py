"""The URL parameters of Compare, and the comparisons that its parts read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import streamlit as st

from dashboard.names import short
from engine import store
from engine.applications.modeldiff.comparison import comparison_id, read_comparison, side
from engine.applications.modeldiff.learned import Learned, learned
from engine.applications.modeldiff.significance import LEVEL
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import DataloupeError, StoreError, UnknownName
from engine.store.layout import TRAK
from engine.store.quantities import P_VALUE
from engine.study.methods import scored_methods
from engine.study.names import resolve_algorithm
from engine.study.nearest import did_you_mean
from engine.study.reader import StudyReader

Key = Literal["a", "b"]
"""`a`: directions in A and not in B; `b`: the reverse."""
OTHER: dict[str, Key] = {"a": "b", "b": "a"}
DIRECTIONS = 5
FOUND, LEARNED, HYPOTHESIS, EXAMPLE = "directions", "learned", "hypothesis", "example"
PANES = {
    FOUND: "Directions",
    LEARNED: "Learned by one",
    HYPOTHESIS: "Hypothesis",
    EXAMPLE: "One example",
}


@dataclass(frozen=True)
class Query:
    """The checked URL parameters.

    Attributes:
        a, b: The algorithms; b is None if the study has only one.
        method_a, method_b: The methods whose scores are compared.
        pane: One of PANES.
        key: The side whose directions are shown.
        number: Of the direction, from 0.
        named: Whether the URL names the side or the direction.
        problems: Messages about invalid parameters.
    """

    a: str
    b: str | None
    method_a: str
    method_b: str
    pane: str
    key: Key
    number: int
    named: bool
    problems: tuple[str, ...]


def read_query(study: StudyReader, given: Mapping[str, str] | None = None) -> Query:
    """Read and check the URL parameters.

    Args:
        given: The URL's parameters; None: those of the page that is drawn.
    """
    query = st.query_params.to_dict() if given is None else given
    problems: list[str] = []
    names = list(study.algorithms)

    def algorithm(key: str, default: str | None) -> str | None:
        name = query.get(key)
        try:
            return default if name is None else resolve_algorithm(study, name)
        except UnknownName as error:
            named = str(name)[:60]
            problems.append(f"This study has no learning algorithm “{named}”.{error.hint}")
            return default

    a = algorithm("a", names[0]) or names[0]
    # The newest of the others is the one a person most likely wants to compare.
    others = [*study.uploads, *(name for name in study.spec.algorithms if name != a)]
    b = algorithm("b", next((name for name in others if name != a), None))
    if a == b:
        problems.append("An algorithm cannot be compared with itself.")
        b = next((name for name in others if name != a), None)

    def method(key: str, algorithm: str) -> str:
        known, chosen = methods_of(study, algorithm), query.get(f"by_{key}")
        if chosen is None or chosen in known:
            return chosen or known[0]
        name = name_of(study, algorithm)
        hint = did_you_mean(chosen, known)
        problems.append(f"{short(name)} has no scores by the method “{str(chosen)[:60]}”.{hint}")
        return known[0]

    pane, key = query.get("pane", FOUND), query.get("side", "a")
    number = query.get("direction", "1")
    return Query(
        a=a,
        b=b,
        method_a=method("a", a),
        method_b=TRAK if b is None else method("b", b),
        pane=pane if pane in PANES else FOUND,
        key="b" if key == "b" else "a",
        number=int(number) - 1 if number.isascii() and number.isdigit() and number != "0" else 0,
        named="side" in query or "direction" in query,
        problems=tuple(problems),
    )


def name_of(study: StudyReader, algorithm: str) -> str:
    """Display name of an algorithm."""
    upload = study.uploads.get(algorithm)
    return algorithm if upload is None else upload.name


def methods_of(study: StudyReader, algorithm: str) -> list[str]:
    """Methods whose scores an algorithm can be compared by, the default first."""
    return scored_methods(study, algorithm) or [TRAK]  # An upload gets TRAK when it is compared.


def comparison_of(study: StudyReader, query: Query) -> dict[str, Any] | None:
    """The comparison of two algorithms by their current scores; None if there is none yet."""
    if query.b is None:
        return None
    try:
        a, b = side(study, query.a, query.method_a), side(study, query.b, query.method_b)
        found = comparison_id(study, a, b, DIRECTIONS)
    except DataloupeError:  # One has no scores yet.
        return None
    path = layout.comparison_file(study.root, found)
    return _comparison(found, stamps_of([path]), study) if path.exists() else None


@st.cache_resource(max_entries=16, show_spinner=False)
def _comparison(comparison: str, stamps: Stamps, _study: StudyReader) -> dict[str, Any]:
    return read_comparison(_study, comparison)


def learned_by(study: StudyReader, about: dict[str, Any]) -> Learned:
    """What the models of both sides learned of the training examples."""
    a, b = (about[key]["algorithm"] for key in ("a", "b"))
    files = [
        layout.outputs_file(study.root, algorithm, checkpoint, "train")
        for algorithm in (a, b)
        for checkpoint in range(study.checkpoints(algorithm))
    ]
    return _learned(a, b, stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner="Reading model outputs…")
def _learned(a: str, b: str, stamps: Stamps, _study: StudyReader) -> Learned:
    return learned(_study, a, b)


def opened(query: Query, about: dict[str, Any]) -> Query:
    """The query with the side and the direction to open on where the URL names none.

    The direction that is least likely to be chance; the first one of A where none was judged.
    """
    if query.named:
        return query
    judged = [
        (one["p"], key, place)
        for key in ("a", "b")
        for place, one in enumerate(about["directions"][key])
        if one["p"] is not None
    ]
    _, key, place = min(judged, default=(None, "a", 0))
    return replace(query, key="b" if key == "b" else "a", number=place)


def hypotheses(study: StudyReader, comparison: str) -> list[dict[str, Any]]:
    """The hypothesis tests of a comparison, newest first; unreadable ones are left out."""
    found = []
    for path in layout.hypothesis_files(study.root, comparison):
        try:
            found.append({"file": path.stem, **store.read_json(path)})
        except StoreError:
            continue
    return sorted(found, key=lambda one: str(one["when"]), reverse=True)


def significance(direction: dict[str, Any]) -> tuple[str, str]:
    """(style, text): whether a direction is more than training randomness."""
    p = direction["p"]
    if p is None:
        return "unknown", "not judged"
    if p < LEVEL:
        return "significant", f"more than chance (p = {P_VALUE.text(p)})"
    return "chance", "no more than chance"
