"""Choose training examples to remove or forget: by class, filter, supporters, at random, by
principal direction, by id, or from the saved sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import streamlit as st

from dashboard.location import MAP, Location, go
from dashboard.names import short
from dashboard.parts.controls.slice_filters import slider_of
from dashboard.parts.controls.uploader import uploader
from dashboard.parts.layout.messages import warning
from dashboard.permissions import gate
from dashboard.read.joint_removal import supporters_together
from dashboard.read.studies import Examples, directions, examples, matching, requested_row, weights
from dashboard.server.uploaded_files import content_of
from dashboard.writes import keep_set
from engine.store.errors import DataloupeError
from engine.store.quantities import EFFECT_RATIO
from engine.store.text import counted
from engine.study.groups import group_columns, group_names
from engine.study.live_and_maps import keeps_checkpoints
from engine.study.names import Named
from engine.study.rankings import find_influences
from engine.study.reader import StudyReader
from engine.study.removal_sets import (
    LONGEST_WORDS,
    RemovalSet,
    kept_sets,
    parse_examples,
    parse_table,
    removal_set,
)

CLASS, FILTER, SUPPORTERS, AT_RANDOM, DIRECTION, IDS, KEPT = (
    "class",
    "filter",
    "supporters",
    "random",
    "direction",
    "ids",
    "kept",
)
WAYS = {
    CLASS: "A class",
    FILTER: "A filter",
    SUPPORTERS: "Supporters",
    AT_RANDOM: "At random",
    DIRECTION: "A direction",
    IDS: "Ids",
    KEPT: "A saved set",
}
INFLUENCE, RANDOM = "influence", "random"
ALONE, TOGETHER = "alone", "together"
STRONGEST = {ALONE: "Strongest one by one", TOGETHER: "Strongest together"}
ORDERS = {INFLUENCE: "Most influential first", RANDOM: "At random"}
LONGEST_LIST = 200_000
LARGEST_MIB = 5
MOST_KEPT = 100
_MESSAGE = "removal_message"


@dataclass(frozen=True)
class ButtonText:
    """Text and icon of the button.

    Attributes:
        text: With `{}` for the number of examples.
        empty_text: Shown while nothing is chosen.
        icon: A Material icon.
    """

    text: str
    empty_text: str
    icon: str


def requested_set(study: StudyReader) -> RemovalSet | None:
    """The set in the URL; None without one. Warns if the set cannot be read."""
    key = st.query_params.get("set")
    if key is None:
        return None
    try:
        return removal_set(study, key)
    except DataloupeError as error:
        warning([str(error)])
        return None


def removal_choice(
    study: StudyReader, location: Location, training: Examples, kind: str, button: ButtonText
) -> None:
    """Show controls that choose a set; the button saves the set and opens it."""
    found = None
    if location.method is not None:
        found = directions(study, location.algorithm, location.method)
    ways = [
        way
        for way in WAYS
        if (way != DIRECTION or found is not None) and (way != CLASS or training.classes)
    ]
    with st.container(horizontal=True, vertical_alignment="bottom", key="removal_way"):
        way = st.segmented_control(
            "Choose by",
            ways,
            format_func=WAYS.__getitem__,
            default=ways[0],
            required=True,
            key="by",
        )
        st.page_link(MAP, label="Or draw a lasso on the Map", query_params=location.parameters())
    forms: dict[str, Callable[[], tuple[np.ndarray, str]]] = {
        CLASS: lambda: _by_group(study, location, training),
        FILTER: lambda: _by_filter(study, location, training, kind),
        SUPPORTERS: lambda: _by_supporters(study, location, kind),
        AT_RANDOM: lambda: _at_random(len(training.table), kind),
        DIRECTION: lambda: _by_direction(found, kind),
        IDS: lambda: _by_ids(study, kind),
        KEPT: lambda: _kept(study),
    }
    rows, words = forms[way]()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if way != KEPT:
            st.text_input(
                "Name of the set",
                key="set_name",
                max_chars=LONGEST_WORDS,
                placeholder=short(words) or "How it was chosen",
                width=300,
            )
        st.button(
            button.text.format(f"{len(rows):,}") if len(rows) else button.empty_text,
            icon=button.icon,
            key="ask",
            on_click=_submit,
            args=(study, rows, words, way != KEPT),
            **(
                {"disabled": not len(rows)}
                if way == KEPT
                else gate("write", disabled=not len(rows))
            ),
        )
    if message := st.session_state.pop(_MESSAGE, None):
        warning([message])


def open_set(study: StudyReader, rows: list[int], words: str) -> None:
    """Callback: open these rows as a set on this page."""
    try:
        go(set=keep_set(study, rows, words).key)
    except DataloupeError as error:
        st.session_state[_MESSAGE] = str(error)


def _submit(study: StudyReader, rows: np.ndarray, words: str, nameable: bool) -> None:
    name = st.session_state.get("set_name", "").strip() if nameable else ""
    open_set(study, rows.tolist(), name or words)
    st.session_state["set_name"] = ""  # the name belongs to this set only


def _by_group(study: StudyReader, location: Location, training: Examples) -> tuple[np.ndarray, str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.selectbox("Class", training.classes, key="removed_class", width=230)
        members = matching(training, {"label": label})
        return _some(study, location, members, f"labeled {label}")


def _by_filter(
    study: StudyReader, location: Location, training: Examples, kind: str
) -> tuple[np.ndarray, str]:
    filters: dict[str, object] = {}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        named = {**training.codes, **training.members}
        for name, title in (("label", "Label"), ("predicted", "Predicted")):
            if name in named:
                chosen = st.selectbox(
                    title,
                    training.classes,
                    index=None,
                    placeholder="Any",
                    key=f"f_{name}",
                    width=200,
                )
                if chosen is not None:
                    filters[name] = chosen
        for name, title in (("label", "Label"), ("output", training.output.capitalize())):
            if name in training.numbers:
                ends, step, shown = slider_of(training.numbers[name])
                key = f"f_{name}_range"
                between = st.slider(title, *ends, ends, step, shown, key=key, width=230)
                if between != ends:
                    filters[name] = between
        groups = [
            (column, value)
            for column in group_columns(study)
            for value in group_names(study, "train", column)
        ]
        if groups:
            group = st.selectbox(
                "Group",
                groups,
                index=None,
                placeholder="Any",
                format_func=": ".join,
                key="f_group",
                width=230,
            )
            if group is not None:
                filters["group"] = group
        part = st.text_input("Id contains", key="f_id", max_chars=200, width=180).strip()
        if part:
            filters["id"] = part
        rows = matching(training, filters) if filters else np.empty(0, np.int64)
        called = {"output": training.output}
        words = ", ".join(
            _filter_text(called.get(name, name), value) for name, value in filters.items()
        )
        if not filters:
            st.html(f'<p class="dl-aside">Set a filter: you cannot remove all {kind}s.</p>')
            return rows, ""
        return _some(study, location, rows, words)


def _filter_text(name: str, value: object) -> str:
    if name == "group":
        return "{} {}".format(*value)  # type: ignore[misc]
    if isinstance(value, tuple):
        return f"{name} {value[0]:g} to {value[1]:g}"
    return f"{name} {value}"


def _some(
    study: StudyReader, location: Location, members: np.ndarray, words: str
) -> tuple[np.ndarray, str]:
    """Choose the number of members and which ones: (rows, description)."""
    if not len(members):
        st.html('<p class="dl-aside">No training example matches.</p>')
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


def _by_supporters(study: StudyReader, location: Location, kind: str) -> tuple[np.ndarray, str]:
    tests = examples(study, "test", location.algorithm)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        example = st.text_input(
            f"Test {kind}, by id or #row",
            value=location.test or "",
            placeholder=str(tests.ids[0]),
            key="supporters_of",
            width=230,
        ).strip()
        most = min(500, study.dataset.n_train - 1)
        k = st.number_input("How many supporters", 1, most, min(12, most), width=180)
        chosen = ALONE
        if keeps_checkpoints(study, location.algorithm):
            chosen = st.selectbox(
                "Which",
                list(STRONGEST),
                format_func=STRONGEST.__getitem__,
                key="supporters_chosen",
                width=210,
                help="Examples that teach the same stand in for each other when one is removed. "
                "A set chosen together takes that into account.",
            )
    row, hint = requested_row(study, "test", example or None)
    if row is None or location.method is None:
        if example:
            warning([f"There is no test {kind} “{example[:60]}”.{hint}"])
        return np.empty(0, np.int64), ""
    if chosen == TOGETHER:
        return _together(study, location.algorithm, row, int(k), f"{kind} {tests.ids[row]}")
    rows = find_influences(study, row, int(k), location.algorithm, location.method)[0]
    words = f"{len(rows):,} strongest supporters of test {kind} {tests.ids[row]}"
    return np.sort(rows.astype(np.int64)), words


def _together(
    study: StudyReader, algorithm: str, row: int, size: int, example: str
) -> tuple[np.ndarray, str]:
    try:
        found = supporters_together(study, algorithm, row, size)
    except DataloupeError as error:
        warning([str(error)])
        return np.empty(0, np.int64), ""
    times = f"<b>{EFFECT_RATIO.text(found.ratio)} times</b>"
    st.html(
        f'<p class="dl-aside">Estimated effect of removing them: {times} that of the '
        f"{len(found.rows):,} strongest one by one (one Newton step, "
        f"{counted(found.checkpoints, 'checkpoint')}).</p>"
    )
    words = f"{len(found.rows):,} supporters of test {example} that do most together"
    return np.sort(found.rows), words


def _at_random(n_train: int, kind: str) -> tuple[np.ndarray, str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = st.number_input(
            f"How many of {n_train:,}", 1, n_train - 1, _some_of(n_train), width=150
        )
        seed = st.number_input("Seed", 0, 10**6, 0, key="random_seed", width=110)
    drawn = np.random.default_rng(int(seed)).permutation(n_train)[: int(number)]
    return np.sort(drawn), f"{number:,} random training {kind}s (seed {seed})"


def _some_of(n_train: int) -> int:
    return max(1, min(50, n_train // 10))


def _by_direction(found: np.ndarray | None, kind: str) -> tuple[np.ndarray, str]:
    assert found is not None
    n_train, most = found.shape
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.number_input("Principal direction", 1, most, 1, key="direction_of", width=160)
        end = st.segmented_control(
            "End", ["positive", "negative"], default="positive", required=True, key="direction_end"
        )
        number = st.number_input("How many", 1, n_train - 1, _some_of(n_train), width=130)
    along = found[:, int(place) - 1] * (1 if end == "positive" else -1)
    rows = np.argsort(-along, kind="stable")[: int(number)]
    words = f"{number:,} {kind}s at the {end} end of principal direction {place}"
    return np.sort(rows), words


def _kept(study: StudyReader) -> tuple[np.ndarray, str]:
    kept = kept_sets(study, MOST_KEPT)
    if not kept:
        st.html('<p class="dl-aside">No saved sets yet. Every set you open is saved.</p>')
        return np.empty(0, np.int64), ""
    named = {one.key: one for one in kept}
    key = st.selectbox(
        "Saved sets, newest first",
        list(named),
        format_func=lambda key: f"{short(named[key].words)} ({len(named[key].rows):,})",
        key="kept_set",
    )
    return named[key].rows, named[key].words


def _by_ids(study: StudyReader, kind: str) -> tuple[np.ndarray, str]:
    text = st.text_area(
        f"Ids of training {kind}s, or rows such as #17, separated by commas, spaces or line breaks",
        key="pasted_ids",
        max_chars=LONGEST_LIST,
    )
    file = uploader(
        "Or a CSV file with the ids in its first column",
        key="ids_file",
        megabytes=LARGEST_MIB,
        type=["csv", "txt"],
    )
    named = parse_examples(study, text)
    words = f"{len(named.rows):,} chosen by id"
    if file is not None:
        try:
            named = parse_table(study, content_of(file))
        except DataloupeError as error:
            warning([str(error)])
            return np.empty(0, np.int64), ""
        words = f"{len(named.rows):,} listed in {file.name}"
    _list_problems(named, kind, given=bool(text.strip() or file))
    return named.rows, words


def _list_problems(named: Named, kind: str, given: bool) -> None:
    """Warn about unknown and repeated names in a list, and about an empty one."""
    lines = []
    if named.unknown:
        some = ", ".join(word[:40] for word in named.unknown[:8])
        more = f" and {len(named.unknown) - 8:,} others" if len(named.unknown) > 8 else ""
        lines.append(f"No training {kind} has the id {some}{more}; ignored.{named.hint}")
    if named.repeated:
        names = "name" if named.repeated == 1 else "names"
        lines.append(f"{named.repeated:,} repeated {names}; each {kind} counts once.")
    if given and not len(named.rows) and not named.unknown:
        lines.append(f"This list names no training {kind}.")
    if lines:
        warning(lines)
