"""The selection bar: what can be done with selected examples, the same wherever examples are.

It shows what applies to the split: test examples are tagged and explained, training examples are
decided about, removed in thought and unlearned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, UNLEARN, WHAT_IF, Location
from dashboard.names import plain
from dashboard.parts.controls.selected_examples import (
    choose_examples,
    count_chosen,
    open_selection,
    selected_rows,
)
from dashboard.parts.gallery.beside import PARAMETER as BESIDE
from dashboard.parts.layout.messages import warning
from dashboard.permissions import gate
from dashboard.read.studies import Examples
from dashboard.writes import decide, keep_set, tag_all
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.store.text import counted
from engine.study.decisions import Verdict
from engine.study.rankings import read_top
from engine.study.reader import StudyReader
from engine.study.tags import LONGEST_TAG

SUPPORTERS = 12
"""Strongest supporters of each selected test example that What if removes."""
VERDICTS: dict[Verdict, tuple[str, str]] = {
    "keep": ("Keep", ":material/check:"),
    "remove": ("Remove", ":material/delete:"),
}
_MESSAGE = "selection_message"


def selection_bar(
    study: StudyReader,
    here: Location,
    split: Split,
    examples: Examples,
    rows: np.ndarray,
    shown: np.ndarray,
    kind: str,
    export: Callable[[np.ndarray, str], None],
    before_export: Callable[[], None] = lambda: None,
) -> None:
    """Show what is selected, and the actions on it.

    Args:
        rows: Of the slice.
        shown: Rows on the gallery's page.
        kind: What the examples are, plural.
        export: Shows the downloads of some rows, under a name such as `12 selected`.
        before_export: Shows further controls before the last action.
    """
    if message := st.session_state.pop(_MESSAGE, None):
        warning([message])
    chosen = selected_rows(here, split)
    with st.container(horizontal=True, vertical_alignment="center", key="toolbar"):
        choose_examples(here, split, examples, rows, shown, kind)
        selection_actions(study, here, split, examples, chosen)
        if split == "test" and len(chosen):
            st.button(
                "Only these",
                icon=":material/filter_alt:",
                key="open_selection",
                on_click=open_selection,
                args=(chosen,),
            )
        st.space("stretch")
        before_export()
        export(
            chosen if len(chosen) else rows,
            f"{len(chosen):,} selected" if len(chosen) else f"all {len(rows):,}",
        )


def bar_of_chosen(
    study: StudyReader,
    here: Location,
    split: Split,
    examples: Examples,
    export: Callable[[np.ndarray, str], None],
) -> None:
    """Show the same bar above a list; nothing until something is selected."""
    chosen = selected_rows(here, split)
    if not len(chosen):
        return
    if message := st.session_state.pop(_MESSAGE, None):
        warning([message])
    with st.container(horizontal=True, vertical_alignment="center", key="chosen"):
        count_chosen(chosen, split)
        selection_actions(study, here, split, examples, chosen)
        export(chosen, f"{len(chosen):,} selected")


def selection_actions(
    study: StudyReader, here: Location, split: Split, examples: Examples, chosen: np.ndarray
) -> None:
    """Show the actions on these rows; none without rows."""
    if len(chosen):
        actions = _on_test if split == "test" else _on_train
        actions(study, here, examples, chosen)


def _on_test(study: StudyReader, here: Location, examples: Examples, chosen: np.ndarray) -> None:
    if examples.has_predictions:
        with st.popover("Tag", icon=":material/label:", width="content", key="tag_selected"):
            st.text_input(
                f"Tag {counted(len(chosen), 'prediction')}",
                key="tag_for_selected",
                max_chars=LONGEST_TAG,
                placeholder="mislabeled",
                on_change=_tag,
                args=(study, here.algorithm, chosen.tolist()),
                **gate("write"),
            )
    if st.button("Explain", icon=":material/compare_arrows:", key="explain_selected"):
        st.switch_page(EXPLAIN, query_params=here.parameters(test=str(examples.ids[chosen[0]])))
    if len(chosen) == 2 and st.button(
        "Compare", icon=":material/compare:", key="compare_selected", help="Side by side"
    ):
        first, second = (str(examples.ids[row]) for row in chosen)
        st.switch_page(EXPLAIN, query_params=here.parameters(test=first, **{BESIDE: second}))
    if here.method is not None and st.button(
        "What if",
        icon=":material/content_cut:",
        key="what_if_selected",
        **gate("write", help=f"Remove the {SUPPORTERS} strongest supporters of each"),
    ):
        top = read_top(study, here.algorithm, here.method)["support_index"]
        supporters = np.unique(top[chosen, :SUPPORTERS])
        words = f"{SUPPORTERS} strongest supporters of {counted(len(chosen), 'test example')}"
        _open_set(study, here, supporters[supporters >= 0], words, WHAT_IF)


def _on_train(study: StudyReader, here: Location, examples: Examples, chosen: np.ndarray) -> None:
    with st.popover("Tag", icon=":material/label:", width="content", key="tag_selected"):
        st.html(f'<div class="dl-where">{counted(len(chosen), "training example")}</div>')
        with st.container(horizontal=True):
            for verdict, (title, icon) in VERDICTS.items():
                st.button(
                    title,
                    icon=icon,
                    key=f"{verdict}_selected",
                    on_click=_decide,
                    args=(study, chosen.tolist(), verdict),
                    **gate("write"),
                )
        if "label" in examples.codes:
            st.selectbox(
                "Relabel",
                examples.classes,
                index=None,
                placeholder="As another class",
                format_func=plain,
                key="relabel_selected",
                on_change=_relabel,
                args=(study, examples, chosen),
                **gate("write"),
            )
    if st.button("Open", icon=":material/open_in_new:", key="explain_selected"):
        st.switch_page(TRAINING, query_params=here.parameters(train=str(examples.ids[chosen[0]])))
    words = f"{counted(len(chosen), 'selected training example')}"
    for title, icon, key, page in (
        ("What if", ":material/content_cut:", "what_if_selected", WHAT_IF),
        ("Unlearn", ":material/ink_eraser:", "unlearn_selected", UNLEARN),
    ):
        if st.button(title, icon=icon, key=key, **gate("write")):
            _open_set(study, here, chosen, words, page)


def _open_set(study: StudyReader, here: Location, rows: np.ndarray, words: str, page: str) -> None:
    """Save a removal set and open it on a page."""
    try:
        kept = keep_set(study, rows.tolist(), words)
    except DataloupeError as error:
        warning([str(error)])
        return
    st.switch_page(page, query_params=here.parameters(set=kept.key))


def _tag(study: StudyReader, algorithm: str, rows: list[int]) -> None:
    name, st.session_state["tag_for_selected"] = st.session_state["tag_for_selected"], ""
    if name.strip():
        _do(lambda: tag_all(study, algorithm, rows, name))


def _decide(study: StudyReader, rows: list[int], verdict: Verdict) -> None:
    _do(lambda: decide(study, rows, verdict))


def _relabel(study: StudyReader, examples: Examples, chosen: np.ndarray) -> None:
    """Relabel the selected examples that have another label."""
    label, st.session_state["relabel_selected"] = st.session_state["relabel_selected"], None
    if label is not None:
        other = examples.codes["label"][chosen] != examples.classes.index(label)
        _do(lambda: decide(study, chosen[other].tolist(), "relabel", label))


def _do(write: Callable[[], None]) -> None:
    try:
        write()
    except DataloupeError as error:
        st.session_state[_MESSAGE] = str(error)
