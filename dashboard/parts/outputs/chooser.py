"""The control that chooses what is explained of an example; the URL holds the choice."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.location import choose
from dashboard.names import plain
from engine.store.records import OutputChoice
from engine.study.example_outputs import Known
from engine.study.output_names import NamedOutput, output_choices
from engine.study.reader import StudyReader

CHOICE, CLASS = "output_choice", "output_class_"
"""Keys of the widgets; the second is followed by a number."""


def choose_output(
    study: StudyReader, chosen: NamedOutput, known: Known, default: NamedOutput, missing: str = ""
) -> None:
    """Show the control, if there is more than one output to choose from.

    Args:
        chosen: What is explained now.
        known: What is known of the example. Outputs of its label are offered only if it has one.
        default: What the URL leaves out.
        missing: What other scores than the stored ones lack, one sentence; empty if nothing.
    """
    choices = [
        choice
        for choice in output_choices(study)
        if (choice.of is None or _class_of(choice, known) is not None)
        and len(known.suggested(choice).classes) == choice.slots
    ]
    offered = [
        choice
        for choice in choices
        if choice == chosen.choice
        or not missing
        or (not choice.slots and known.is_stored(study, NamedOutput(choice)))
    ]
    if len(choices) < 2:
        return
    with st.popover("Explain…", icon=":material/help:", width="content", key="choose_output"):
        names = [choice.name for choice in offered]
        st.session_state[CHOICE] = chosen.choice.name
        st.radio(
            "What should the scores explain?",
            names,
            format_func=lambda name: _label(offered[names.index(name)], known),
            key=CHOICE,
            on_change=_choose_family,
            args=(offered, known, default),
        )
        for place, name in enumerate(chosen.classes):
            st.session_state[f"{CLASS}{place}"] = name
            st.selectbox(
                _slot_label(chosen, place),
                study.dataset.classes,
                format_func=plain,
                key=f"{CLASS}{place}",
                on_change=_choose_class,
                args=(chosen, place),
            )
        if missing:
            st.caption(plain_sentence(missing))
        elif known.label is not None:
            st.caption("Other outputs than the stored one are computed live by TRAK.")


def plain_sentence(text: str) -> str:
    """A sentence for Streamlit that is not read as markup, except for its code."""
    return text.replace("[", "\\[").replace("<", "\\<").replace("$", "\\$")


def _class_of(choice: OutputChoice, known: Known) -> str | None:
    return known.label if choice.of == "label" else known.predicted


def _label(choice: OutputChoice, known: Known) -> str:
    name = _class_of(choice, known) if choice.of else None
    label = choice.label[0].upper() + choice.label[1:]
    return label if name is None else f"{label}: {plain(name)}"


def _slot_label(chosen: NamedOutput, place: int) -> str:
    if len(chosen.classes) == 1:
        return "Class"
    return "Why" if place == 0 else "rather than"


def _choose_family(offered: Sequence[OutputChoice], known: Known, default: NamedOutput) -> None:
    """Callback: write another choice to the URL, with the classes of most interest."""
    name = st.session_state[CHOICE]
    output = known.suggested(next(choice for choice in offered if choice.name == name))
    choose(output=None if output == default else output.name)


def _choose_class(chosen: NamedOutput, place: int) -> None:
    """Callback: write another class to the URL. A class chosen twice changes places."""
    name = st.session_state[f"{CLASS}{place}"]
    classes = list(chosen.classes)
    if name in classes:
        classes[classes.index(name)] = classes[place]
    classes[place] = name
    choose(output=NamedOutput(chosen.choice, tuple(classes)).name)
