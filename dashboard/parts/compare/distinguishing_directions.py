"""The distinguishing directions of a comparison: all as bars, and one in detail."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location, choose, go, keep
from dashboard.names import plain, short
from dashboard.parts.compare.direction_space import direction_space
from dashboard.parts.compare.letters import lettered
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.curation.decision_export import export_training
from dashboard.parts.gallery.cards import test_cards, training_card
from dashboard.parts.gallery.gallery import Card, Group, Sign, gallery
from dashboard.parts.layout.blocks import aside
from dashboard.read.comparisons import OTHER, Query, significance
from dashboard.read.rows_in_words import makeup
from dashboard.read.studies import Examples, examples, what_it_shows
from dashboard.slice_parameters import MOST_PICKED
from engine.applications.modeldiff.notes import LONGEST_NAME, LONGEST_NOTE, Note, keep_note, notes
from engine.applications.modeldiff.report_file import attributed_by
from engine.store.errors import DataloupeError
from engine.store.quantities import ACCURACY, COORDINATE, SHARE, SIMILARITY, predicted_text
from engine.study.reader import StudyReader

SIDE = 84
SHOWN = 14
GROUPS = 3
"""Classes named in a cell of the table."""
_MESSAGE = "note_message"


def choose_direction(study: StudyReader, about: dict[str, Any], query: Query) -> None:
    """Controls for the side and, if it has any, for one of its directions."""
    names = {key: short(about[key]["name"]) for key in ("a", "b")}
    st.session_state["side"] = query.key
    st.segmented_control(
        "Whose directions",
        ["a", "b"],
        format_func=lambda key: (
            f"In {key.upper()} ({plain(names[key])}), "
            f"not in {OTHER[key].upper()} ({plain(names[OTHER[key]])})"
        ),
        key="side",
        required=True,
        on_change=keep,
        args=("side", None, ("direction",)),
        label_visibility="collapsed",
    )
    if found := about["directions"][query.key]:
        noted = notes(study, about["id"])
        st.html('<div class="dl-where">Direction</div>', width="content")
        st.session_state["direction"] = str(_number(about, query) + 1)
        st.segmented_control(
            "Direction",
            [str(place + 1) for place in range(len(found))],
            format_func=lambda shown: _label(noted.get((query.key, int(shown) - 1)), shown),
            key="direction",
            required=True,
            on_change=_keep_direction,
            args=(query.key,),
            label_visibility="collapsed",
        )


def directions(study: StudyReader, about: dict[str, Any], query: Query, location: Location) -> None:
    """Show the directions of a side, and the chosen one."""
    if not about["directions"][query.key]:
        aside("There is no direction along which they differ.")
        return
    noted, number = notes(study, about["id"]), _number(about, query)
    st.html(bars(about, query.key, number, noted))
    one(study, about, query.key, number, location)
    note_form(study, about["id"], query.key, number, noted.get((query.key, number)))
    direction_space(study, about, query.key, number, location)


def _number(about: dict[str, Any], query: Query) -> int:
    """The chosen direction; the last one if there are fewer."""
    return min(query.number, max(len(about["directions"][query.key]) - 1, 0))


def _keep_direction(key: str) -> None:
    """Callback: a direction belongs to a side."""
    choose(side=key, direction=st.session_state["direction"])


def _label(note: Note | None, number: str) -> str:
    return f"{number} · {plain(note.name)}" if note and note.name else number


def bars(about: dict[str, Any], key: str, number: int, noted: dict[tuple[str, int], Note]) -> str:
    """HTML of each direction's share of both algorithms' variance, and its significance."""
    names = about[key]["name"], about[OTHER[key]]["name"]
    found = about["directions"][key]
    most = max(max(one["own_variance"], one["other_variance"]) for one in found) or 1.0
    entries = []
    for place, one in enumerate(found):
        kind, words = significance(one)
        note = noted.get((key, place))
        title = f"Direction {place + 1}" + (f" · {note.name}" if note and note.name else "")
        pairs = "".join(
            f'<div class="dl-pair" data-kind="{side}"><span>{lettered(side, name)}</span>'
            f'<span class="dl-track"><i style="width:{100 * value / most:.1f}%"></i></span>'
            f"<span>{escape(ACCURACY.text(value))}</span></div>"
            for side, name, value in (
                (key, names[0], one["own_variance"]),
                (OTHER[key], names[1], one["other_variance"]),
            )
        )
        current = ' aria-current="true"' if place == number else ""
        entries.append(
            f'<li data-judged="{kind}"{current}><div class="dl-name">{escape(title)} '
            f'<span class="dl-tag">{words}</span></div>{pairs}</li>'
        )
    return (
        '<ol class="dl-pairs" role="list" aria-label="Share of the variance of attributions along '
        f'each direction">{"".join(entries)}</ol>'
    )


def one(
    study: StudyReader, about: dict[str, Any], key: str, number: int, location: Location
) -> None:
    """Show one direction: a table, the test examples at both ends, and the training examples."""
    found = about["directions"][key][number]
    own, other = about[key], about[OTHER[key]]
    st.html(story(about, key, found))
    aside(f"{attributed_by(about)} {about['significance']}")
    kind = what_it_shows(study)
    tests = examples(study, "test", own["algorithm"])
    theirs = examples(study, "test", other["algorithm"])
    rows, along = np.array(found["tests"], np.int64), np.array(found["projections"])
    main, reverse = ends_of(found)
    ends = []
    for name in (main, reverse):
        members = along > 0 if name == "positive" else along < 0
        some = rows[members]
        if name == reverse and not len(some):
            continue
        ends.append(
            Group(
                f"Test examples at the {name} end",
                _projected(
                    tests, theirs, some[:SHOWN], along[members].tolist(), (own, other), location
                ),
                title=f"Test {kind}s at the {name} end",
                words="Those that it moves most; numbers are their projections.",
                makeup=makeup(tests, some),
                empty="None at this end.",
            )
        )
    gallery(
        study,
        "test",
        ends,
        SIDE,
        "direction_tests",
        lambda row: st.switch_page(
            EXPLAIN,
            query_params=location.parameters(
                test=str(tests.ids[row]), algorithm=own["algorithm"], method=own["method"]
            ),
        ),
    )
    training = examples(study, "train")
    bar_of_chosen(study, location, "train", training, partial(export_training, study, location))
    gallery(
        study,
        "train",
        [
            _used(training, found, main, main, key, about, location),
            _used(training, found, reverse, main, OTHER[key], about, location),
        ],
        SIDE,
        "direction_training",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
        selected=location.selected_train,
        most=MOST_PICKED,
        on_select=partial(select, split="train"),
    )


def ends_of(found: dict[str, Any]) -> tuple[str, str]:
    """The end of a direction at which most of its test examples are, and the other one."""
    return ("positive", "negative") if sum(found["projections"]) >= 0 else ("negative", "positive")


def story(about: dict[str, Any], key: str, found: dict[str, Any]) -> str:
    """HTML of the table of one direction: what A and B have of it, and how sure it is."""
    sides = {key: "own", OTHER[key]: "other"}
    rows = [
        (
            "Share of the variance of its attributions",
            *(ACCURACY.text(found[f"{sides[one]}_variance"]) for one in "ab"),
        )
    ]
    accuracies = [found[f"{sides[one]}_accuracy"] for one in "ab"]
    if None not in accuracies:
        title = (
            f"Accuracy on the {len(found['tests']):,} test examples with the largest projections"
        )
        rows.append((title, *map(ACCURACY.text, accuracies)))
    main, reverse = ends_of(found)
    ends = {key: main, OTHER[key]: reverse}
    groups = [found[f"{ends[one]}_groups"] for one in "ab"]
    if any(groups):
        used = (_most(one) for one in groups)
        rows.append((f"At the {main} end, relies more on training examples of", *used))
    head = "".join(f'<th scope="col">{lettered(one, about[one]["name"])}</th>' for one in "ab")
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th><td>{escape(a)}</td><td>{escape(b)}</td></tr>'
        for title, a, b in rows
    )
    _, judged = significance(found)
    both = {
        "Beyond training randomness": judged,
        "Stability": f"{SIMILARITY.text(found['stability'])}, median cosine over resampled test "
        "examples",
    }
    if found["test_groups"]:
        both["Test examples are"] = _most(found["test_groups"])
    body += "".join(
        f'<tr><th scope="row">{escape(title)}</th><td colspan="2">{escape(text)}</td></tr>'
        for title, text in both.items()
    )
    return (
        '<div class="dl-stages dl-story" role="region" tabindex="0" '
        f'aria-label="Direction {found["number"] + 1}">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _most(shares: dict[str, float]) -> str:
    """The largest groups with their shares: `Coat 62%, Shirt 20%`."""
    first = list(shares.items())[:GROUPS]
    return ", ".join(f"{short(name)} {SHARE.text(share)}" for name, share in first) or "–"


def _used(
    training: Examples,
    found: dict[str, Any],
    sign: str,
    main: str,
    key: str,
    about: dict[str, Any],
    location: Location,
) -> Group:
    """The training examples with the largest weights of one sign, which one side uses more.

    Args:
        main: The end at which it does; at the other end the other side does.
        key: That side.
    """
    rows = np.array(found[sign], np.int64)
    weights = np.array(found[f"{sign}_weights"])
    largest = max(
        (abs(weight) for s in ("positive", "negative") for weight in found[f"{s}_weights"]),
        default=1.0,
    )
    name, letter = short(about[key]["name"]), key.upper()
    mark: Sign = "a" if key == "a" else "b"
    return Group(
        f"Training examples with {sign} weights, which {name} uses more",
        [
            replace(
                training_card(
                    int(row),
                    training.table.iloc[row].to_dict(),
                    f"weight {COORDINATE.text(weight)}",
                    location,
                    {},
                ),
                score=COORDINATE.text(weight),
                bar=abs(float(weight)) / largest,
            )
            for row, weight in zip(rows[:SHOWN], weights[:SHOWN], strict=True)
        ],
        title=f"Used more by {name}",
        words=f"They support test examples at the {main} end more under {letter}; at the other end "
        "it is the reverse. Numbers: weights in the direction.",
        sign=mark,
        makeup=makeup(training, rows),
        empty="None.",
    )


def _projected(
    tests: Examples,
    theirs: Examples,
    rows: np.ndarray,
    projections: list[float],
    sides: tuple[dict[str, Any], dict[str, Any]],
    location: Location,
) -> list[Card]:
    """Cards with the predictions of both algorithms."""
    largest = max(map(abs, projections), default=1.0) or 1.0
    cards = []
    for card, along in zip(test_cards(tests, rows, location), projections, strict=False):
        if tests.has_predictions and theirs.has_predictions:
            predictions = [
                predicted_text(one.table["predicted"].tolist()[card.row], tests.predicted)
                for one in (tests, theirs)
            ]
            marks, right = predictions, [True, True]
            if tests.has_outcomes:
                right = [bool(one.table["correct"].iloc[card.row]) for one in (tests, theirs)]
                marks = [
                    "✓" if ok else f"✕ {predicted}"
                    for ok, predicted in zip(right, predictions, strict=True)
                ]
            named = [f"{s['name']} predicts {p}" for s, p in zip(sides, predictions, strict=True)]
            card = replace(
                card,
                note=" / ".join(marks) if len(set(predictions)) > 1 else f"both {marks[0]}",
                aside="",
                wrong=not all(right),
                hint=f"{card.name}: {', '.join(named)}",
            )
        cards.append(replace(card, score=COORDINATE.text(along), bar=abs(along) / largest))
    return cards


# --- name and note -------------------------------------------------------------------------------


def note_form(
    study: StudyReader, comparison: str, key: str, number: int, note: Note | None
) -> None:
    """Show the form for this direction's name and note, which are saved for everyone."""
    place = f"{comparison}_{key}{number}"
    with st.form(f"note_{place}", border=False):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input(
                "Name of this direction",
                value=note.name if note else "",
                max_chars=LONGEST_NAME,
                key=f"direction_name_{place}",
                placeholder="What it shows",
                width=300,
            )
            st.form_submit_button(
                "Save name and note",
                icon=":material/edit_note:",
                on_click=_keep,
                args=(study, comparison, key, number),
            )
        st.text_area(
            "Note",
            value=note.note if note else "",
            max_chars=LONGEST_NOTE,
            key=f"direction_note_{place}",
            height=90,
        )
    if message := st.session_state.pop(_MESSAGE, None):
        kind, text = message
        st.html(f'<p class="dl-result" data-kind="{kind}" role="status">{escape(text)}</p>')


def _keep(study: StudyReader, comparison: str, key: str, number: int) -> None:
    place = f"{comparison}_{key}{number}"
    name, note = (st.session_state[f"direction_{part}_{place}"] for part in ("name", "note"))
    try:
        keep_note(study, comparison, key, number, name, note)
    except DataloupeError as error:
        st.session_state[_MESSAGE] = "wrong", str(error)
    else:
        st.session_state[_MESSAGE] = "good", "Saved with the comparison."
    go()
