"""The review of suspect labels: one example after the other, by buttons and keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import Location, go
from dashboard.names import plain, short
from dashboard.parts.curation.decision_export import export_decisions
from dashboard.parts.curation.decision_words import decided, tally
from dashboard.parts.curation.training_cards import training_set_cards
from dashboard.parts.gallery.cards import similar_cards
from dashboard.parts.gallery.example_header import subject
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.gallery.similar_examples import with_conflicts
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.messages import warning
from dashboard.permissions import gate, person
from dashboard.read.curation import Curation, decisions, queue_rows
from dashboard.read.studies import Examples
from dashboard.writes import decide, undo_decision
from engine.applications.curation.label_suspicion import LabelSuspicion
from engine.store.errors import DataloupeError
from engine.store.quantities import (
    DISAGREEMENT,
    LABEL_MARGIN,
    NET_INFLUENCE,
    SELF_INFLUENCE,
    SUSPICION,
)
from engine.study.decisions import Decision, Verdict, newest
from engine.study.neighbours import find_neighbours
from engine.study.reader import StudyReader

SIDE, STRIP = 112, 56
SIMILAR = 7
UPCOMING = 40
_MESSAGE = "review_message"
_KEYS = """
export default function () {
  const press = event => {
    const typing = event.target.closest?.("input, textarea, select, [role=combobox], [role=dialog]")
    if (event.key.toLowerCase() !== "r" || event.ctrlKey || event.metaKey || event.altKey) return
    const button = document.querySelector(".st-key-decide_relabel button")
    if (typing || !button) return
    event.preventDefault()
    event.stopImmediatePropagation()
    button.click()
  }
  addEventListener("keydown", press, true)
  return () => removeEventListener("keydown", press, true)
}
"""


@dataclass(frozen=True)
class Queue:
    """What is reviewed.

    Attributes:
        rows: Training rows, most suspicious first.
        place: Of the current one.
        made: What was decided about any training example.
    """

    rows: np.ndarray
    place: int
    made: Mapping[int, Decision]

    @property
    def row(self) -> int:
        return int(self.rows[self.place])

    @property
    def reviewed(self) -> list[Decision]:
        return [self.made[row] for row in self.rows.tolist() if row in self.made]

    def next_open(self) -> int:
        """Place of the next one without a decision; the next one, where all have one."""
        ahead = [*range(self.place + 1, len(self.rows)), *range(self.place)]
        open_ = (place for place in ahead if int(self.rows[place]) not in self.made)
        return next(open_, min(self.place + 1, len(self.rows) - 1))


def read_queue(
    study: StudyReader, found: LabelSuspicion, rows: np.ndarray, current: int | None
) -> Queue | None:
    """The queue within these rows; None if it is empty.

    Args:
        current: The row in the address; where there is none, the first without a decision.
    """
    queue, made = queue_rows(found, rows), decisions(study)
    if not len(queue):
        return None
    places = np.flatnonzero(queue == -1 if current is None else queue == current)
    if len(places):
        return Queue(queue, int(places[0]), made)
    open_ = (place for place, row in enumerate(queue.tolist()) if row not in made)
    return Queue(queue, next(open_, 0), made)


def review(
    study: StudyReader,
    here: Location,
    training: Examples,
    found: Curation,
    queue: Queue,
    kind: str,
) -> None:
    """Show the current example with what speaks against its label, the decisions and the queue."""
    suspicion = found.suspicion
    assert suspicion is not None
    row = queue.row
    example = training.table.iloc[row].to_dict()
    label = str(example["label"])
    (other,) = suspicion.suggested([row])

    def show(place: int) -> None:
        go(train=str(training.ids[queue.rows[place]]))

    if message := st.session_state.pop(_MESSAGE, None):
        warning([message])
    side, main = st.columns([0.28, 0.72], gap="large")
    with side, st.container(key="suspect"):
        subject(study, suspicion.algorithm, "train", row, example)
    with main:
        st.html(_question(queue, example, other))
        _buttons(training, queue, label, other, show, study)
        st.html(_evidence(row, suspicion, found))
        aside(f"{suspicion.words} {suspicion.evidence.words}")
        _similar(study, here, training, row, label, kind, suspicion.algorithm)
    ahead = queue.rows[max(0, queue.place - 4) : queue.place + UPCOMING]
    cards = training_set_cards(training, ahead, here, found, queue.made, "suspicion")
    st.html('<h3 class="dl-heading">The queue, most suspect first</h3>')
    places = {int(one): place for place, one in enumerate(queue.rows)}
    gallery(study, "train", [Group("Queue", cards)], STRIP, "queue", lambda one: show(places[one]))
    st.components.v2.component("dataloupe_review_keys", html="<i></i>", js=_KEYS)(
        key="review_keys", height="content"
    )


def review_progress(study: StudyReader, here: Location, found: Curation, queue: Queue) -> None:
    """Show how far the review is, and what takes its decisions away; in the row of the title."""
    done = queue.reviewed
    share = len(done) / len(queue.rows)
    words = tally(done)
    st.space("stretch")
    st.html(
        f'<div class="dl-progress" role="status"><b>{len(done):,} of {len(queue.rows):,} '
        f"reviewed</b>{' · ' if words else ''}{words}"
        f'<div class="dl-track"><i style="width:{100 * share:.1f}%"></i></div></div>',
        width="content",
    )
    export_decisions(study, here, found, queue.made)


def _question(queue: Queue, example: Mapping[Hashable, object], other: str) -> str:
    """HTML of what is asked."""
    made = queue.made.get(queue.row)
    so_far = "" if made is None else f'<em class="dl-decided">{escape(decided(made))}</em>'
    label, other = (escape(short(name)) for name in (example["label"], other))
    return (
        f'<div class="dl-question"><h2>Is this “{label}”, or “{other}”? {so_far}'
        f"<small>{queue.place + 1:,} of {len(queue.rows):,}</small></h2></div>"
    )


def _evidence(row: int, suspicion: LabelSuspicion, found: Curation) -> str:
    """HTML of what speaks against the label, and how much the example does."""
    runs = suspicion.evidence.runs
    facts = [
        (
            "Label suspicion",
            SUSPICION.text(suspicion.suspicion[row]),
            "of test labels look less wrong",
        ),
        (
            "Margin of the label",
            "unknown"
            if np.isnan(suspicion.margin[row])
            else LABEL_MARGIN.text(suspicion.margin[row]),
            f"in {runs:.0f} models that did not see it" if runs else "by models that saw it",
        ),
    ]
    for name, title, quantity, words in (
        ("disagreement", "Neighbors disagree", DISAGREEMENT, "have other labels"),
        ("self", "Self-influence", SELF_INFLUENCE, "on its own margin"),
        ("harm", "Net influence", NET_INFLUENCE, f"on all test predictions, {found.unit}"),
    ):
        if name in found.values and np.isfinite(found.values[name][row]):
            facts.append((title, quantity.text(found.values[name][row]), words))
    listed = "".join(
        f"<div><dt>{title}</dt><dd>{escape(value)} <small>{escape(words)}</small></dd></div>"
        for title, value, words in facts
    )
    return f'<dl class="dl-evidence">{listed}</dl>'


def _buttons(
    training: Examples,
    queue: Queue,
    label: str,
    other: str,
    show: Callable[[int], None],
    study: StudyReader,
) -> None:
    """Show the decisions, and the way through the queue."""
    row = queue.row

    def do(write: Callable[[], None], then: int) -> None:
        try:
            write()
        except DataloupeError as error:
            st.session_state[_MESSAGE] = str(error)
        else:
            show(then)

    def choose(verdict: Verdict, to: str | None = None) -> None:
        do(lambda: decide(study, [row], verdict, to), queue.next_open())

    def choose_other() -> None:
        to, st.session_state["relabel_as"] = st.session_state["relabel_as"], None
        if to:
            choose("relabel", to)

    current = queue.made.get(row)
    mine = {place: one for place, one in queue.made.items() if one.who == person().key}
    back = current or newest(mine)

    def take_back() -> None:
        assert back is not None
        places = np.flatnonzero(queue.rows == back.row)
        place = int(places[0]) if len(places) else queue.place
        do(lambda: undo_decision(study, back.row), place)

    with st.container(horizontal=True, vertical_alignment="bottom", key="review_buttons"):
        st.button(
            "Keep",
            icon=":material/check:",
            shortcut="K",
            key="decide_keep",
            on_click=choose,
            args=("keep",),
            **gate("write", help="The label is right"),
        )
        st.button(
            f"Relabel: {plain(other)}  `R`",
            icon=":material/edit:",
            key="decide_relabel",
            on_click=choose,
            args=("relabel", other),
            **gate("write", help="The label is wrong: this is the likeliest other class"),
        )
        st.selectbox(
            "Relabel as another class",
            [name for name in training.classes if name not in (label, other)],
            index=None,
            placeholder="Another class",
            key="relabel_as",
            on_change=choose_other,
            label_visibility="collapsed",
            width=170,
            **gate("write"),
        )
        st.button(
            "Remove",
            icon=":material/delete:",
            shortcut="X",
            key="decide_remove",
            on_click=choose,
            args=("remove",),
            **gate("write", help="The example does not belong in the training set"),
        )
        st.space("stretch")
        st.button(
            "Undo",
            icon=":material/undo:",
            shortcut="U",
            key="decide_undo",
            on_click=take_back,
            **gate("write", disabled=back is None),
        )
        st.button(
            "Previous",
            shortcut="Left",
            key="review_previous",
            disabled=queue.place == 0,
            on_click=show,
            args=(queue.place - 1,),
        )
        st.button(
            "Next",
            shortcut="Right",
            key="review_next",
            disabled=queue.place + 1 >= len(queue.rows),
            on_click=show,
            args=(queue.place + 1,),
        )


def _similar(
    study: StudyReader,
    here: Location,
    training: Examples,
    row: int,
    label: str,
    kind: str,
    algorithm: str,
) -> None:
    """The nearest training examples, marked where their label is another."""
    try:
        rows, similarity = find_neighbours(study, "train", row, SIMILAR, algorithm)
    except DataloupeError as error:
        st.html(f'<p class="dl-aside">{escape(str(error))}</p>')
        return
    cards = with_conflicts(similar_cards(training, rows, similarity, here), label)
    group = Group(
        f"Similar training {kind}",
        cards,
        title=f"Similar training {kind}",
        sign="similar",
        words=f"Those with another label than {label} are marked.",
    )
    gallery(study, "train", [group], SIDE, "similar_to_suspect")
