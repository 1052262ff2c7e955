"""The control that chooses what is explained of an example; the URL holds the choice."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.location import choose
from dashboard.names import plain
from engine.data.tokens import target_pieces
from engine.store.records import OutputChoice
from engine.study.example_outputs import Known
from engine.study.output_names import NamedOutput, output_choices
from engine.study.reader import StudyReader

CHOICE, CLASS = "output_choice", "output_class_"
"""Keys of the widgets; the second is followed by a number."""
TOKENS, TEXT, RANGE = "output_tokens", "output_text", "output_range"


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
        if chosen.choice.takes == "tokens":
            _choose_tokens(study, chosen, known)
        elif chosen.choice.takes == "text":
            st.session_state[TEXT] = chosen.classes[0]
            st.text_input("Other text", key=TEXT, on_change=_choose_text, args=(chosen,))
        elif chosen.choice.takes == "range":
            _choose_range(chosen, known)
        for place, name in enumerate(chosen.classes if chosen.choice.takes == "class" else ()):
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
        elif (known.label, known.target, known.timesteps) != (None, None, None):
            st.caption("Other outputs than the stored one are computed live by TRAK.")


def _choose_tokens(study: StudyReader, chosen: NamedOutput, known: Known) -> None:
    """The target's tokens, each of which can be chosen or left out."""
    pieces = target_pieces(known.target or "", study.dataset.encoding)
    numbers = range(1, 1 + len(pieces))
    taken = {int(number) for number in chosen.classes[0].split(",")}
    st.session_state[TOKENS] = [number for number in numbers if number in taken]
    st.pills(
        "Target tokens",
        list(numbers),
        selection_mode="multi",
        format_func=lambda number: plain(pieces[number - 1]),
        key=TOKENS,
        on_change=_take_tokens,
        args=(chosen,),
    )


def _take_tokens(chosen: NamedOutput) -> None:
    """Callback: write the chosen tokens to the URL. The last one cannot be left out."""
    if numbers := st.session_state[TOKENS]:
        choose(output=NamedOutput(chosen.choice, (",".join(map(str, sorted(numbers))),)).name)


def _choose_text(chosen: NamedOutput) -> None:
    """Callback: write another text to the URL."""
    if text := st.session_state[TEXT].strip():
        choose(output=NamedOutput(chosen.choice, (text,)).name)


def _choose_range(chosen: NamedOutput, known: Known) -> None:
    """The first and the last of the timesteps."""
    first, last = map(int, chosen.classes[0].split("-"))
    st.session_state[RANGE] = (first, last)
    st.slider(
        "Timesteps, from hardly any noise on the left to noise alone on the right",
        min_value=1,
        max_value=known.timesteps or last,
        key=RANGE,
        on_change=_take_range,
        args=(chosen,),
    )


def _take_range(chosen: NamedOutput) -> None:
    """Callback: write the chosen range to the URL."""
    first, last = st.session_state[RANGE]
    choose(output=NamedOutput(chosen.choice, (f"{first}-{last}",)).name)


def plain_sentence(text: str) -> str:
    """A sentence for Streamlit that is not read as markup, except for its code."""
    return text.replace("[", "\\[").replace("<", "\\<").replace("$", "\\$")


def _class_of(choice: OutputChoice, known: Known) -> str | None:
    named = {"label": known.label, "predicted": known.predicted, "target": known.target}
    return named[choice.of] if choice.of else None


def _label(choice: OutputChoice, known: Known) -> str:
    name = None if choice.slots else _class_of(choice, known)
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
