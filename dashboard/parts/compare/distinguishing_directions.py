"""The distinguishing directions of a comparison: all as bars, and one in detail."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location, go, keep
from dashboard.names import plain, short
from dashboard.parts.compare.direction_space import direction_space
from dashboard.parts.gallery.cards import test_cards, training_card
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.read.comparisons import OTHER, Query, significance
from dashboard.read.rows_in_words import makeup
from dashboard.read.studies import Examples, examples
from engine.applications.modeldiff.notes import LONGEST_NAME, LONGEST_NOTE, Note, keep_note, notes
from engine.applications.modeldiff.report_file import attributed_by
from engine.store.errors import DataloupeError
from engine.store.quantities import ACCURACY, COORDINATE, SIMILARITY, predicted_text
from engine.study.capabilities import has
from engine.study.reader import StudyReader

SIDE = 84
SHOWN = 18
_MESSAGE = "note_message"


def directions(study: StudyReader, about: dict[str, Any], query: Query, location: Location) -> None:
    """Choose a side and a direction, and show it."""
    names = {key: short(about[key]["name"]) for key in ("a", "b")}
    noted = notes(study, about["id"])
    st.session_state["side"] = query.key
    st.segmented_control(
        "Whose directions",
        ["a", "b"],
        format_func=lambda key: f"In {plain(names[key])}, not in {plain(names[OTHER[key]])}",
        key="side",
        required=True,
        on_change=keep,
        args=("side", "a", ("direction",)),
    )
    found = about["directions"][query.key]
    if not found:
        aside("There is no direction along which they differ.")
        return
    number = min(query.number, len(found) - 1)
    st.html(bars(about, query.key, number, noted))
    aside(f"{attributed_by(about)} {about['significance']}")
    st.session_state["direction"] = str(number + 1)
    st.segmented_control(
        "Direction",
        [str(place + 1) for place in range(len(found))],
        format_func=lambda shown: _label(noted.get((query.key, int(shown) - 1)), shown),
        key="direction",
        required=True,
        on_change=keep,
        args=("direction", "1"),
    )
    one(study, about, query.key, number, location)
    note_form(study, about["id"], query.key, number, noted.get((query.key, number)))
    direction_space(study, about, query.key, number, location)


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
            f'<div class="dl-pair" data-kind="{side}"><span>{escape(short(name))}</span>'
            f'<span class="dl-track"><i style="width:{100 * value / most:.1f}%"></i></span>'
            f"<span>{escape(ACCURACY.text(value))}</span></div>"
            for side, name, value in (
                ("own", names[0], one["own_variance"]),
                ("other", names[1], one["other_variance"]),
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
    """Show one direction: its figures, its training examples, and its test examples."""
    found = about["directions"][key][number]
    own, other = about[key], about[OTHER[key]]
    heading(f"Direction {number + 1}")
    st.html(f'<p class="dl-says">{escape(found["reading"])}</p>')
    shown = {
        "Stability": (
            SIMILARITY.text(found["stability"]),
            "median cosine over resampled test examples; 1 is perfectly stable",
        )
    }
    for side, accuracy in ((own, found["own_accuracy"]), (other, found["other_accuracy"])):
        if accuracy is not None:
            words = f"on the {len(found['tests']):,} test examples below"
            shown[f"Accuracy of {short(side['name'])}"] = ACCURACY.text(accuracy), words
    figures(shown)
    training = examples(study, "train")
    kind = "picture" if has(study, "pictures") else "example"
    gallery(
        study,
        "train",
        [
            _weighted(training, found, "positive", "support", location, kind),
            _weighted(training, found, "negative", "oppose", location, kind),
        ],
        SIDE,
        "direction_training",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
    )
    tests = examples(study, "test", own["algorithm"])
    theirs = examples(study, "test", other["algorithm"])
    rows = np.array(found["tests"][: 2 * SHOWN], np.int64)
    group = Group(
        "Test examples with the largest projections",
        _projected(tests, theirs, rows, found["projections"], (own, other), location),
        title="Most affected",
        words=f"Test {kind}s with the largest projections; the sign gives the side.",
        sign="similar",
        makeup=makeup(tests, np.array(found["tests"], np.int64)),
    )
    gallery(
        study,
        "test",
        [group],
        SIDE,
        "direction_tests",
        lambda row: st.switch_page(
            EXPLAIN,
            query_params=location.parameters(
                test=str(tests.ids[row]), algorithm=own["algorithm"], method=own["method"]
            ),
        ),
    )


def _weighted(
    training: Examples,
    found: dict[str, Any],
    sign: str,
    colour: Any,
    location: Location,
    kind: str,
) -> Group:
    rows = np.array(found[sign], np.int64)
    weights = np.array(found[f"{sign}_weights"])
    largest = max(
        (abs(weight) for s in ("positive", "negative") for weight in found[f"{s}_weights"]),
        default=1.0,
    )
    classes = f"; classes of all {len(rows)}" if training.classes else ""
    return Group(
        f"Training examples with {sign} weights",
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
        title=f"{sign.capitalize()} weights",
        words=f"Training {kind}s at this end, largest weights first{classes}.",
        sign=colour,
        makeup=makeup(training, rows),
        empty="None at this end.",
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
                predicted_text(one.table["predicted"].tolist()[card.row]) for one in (tests, theirs)
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
