"""Training examples that one of two algorithms learned and the other did not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from dashboard.location import TRAINING, Location
from dashboard.names import short
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.curation.decision_export import export_training
from dashboard.parts.gallery.cards import training_card
from dashboard.parts.gallery.gallery import Card, Group, Sign, gallery
from dashboard.parts.layout.blocks import aside
from dashboard.read.comparisons import OTHER, Key, learned_by
from dashboard.read.rows_in_words import makeup
from dashboard.read.studies import Examples, examples, what_it_shows
from dashboard.slice_parameters import MOST_PICKED
from engine.applications.modeldiff.learned import RATE, Learned
from engine.store.quantities import CHANGE, OUTPUT, SHARE
from engine.study.reader import StudyReader

SIDE = 84
SHOWN = 28
SIDES: tuple[Key, ...] = ("a", "b")


def learned_by_one(study: StudyReader, about: dict[str, Any], location: Location) -> None:
    """Show the training examples that tell the two apart, the clearest first."""
    found = learned_by(study, about)
    training, kind = examples(study, "train"), what_it_shows(study)
    if min(about[key]["checkpoints"] for key in SIDES) < 2:
        aside("One side has a single checkpoint, so differences cannot be told from chance.")
        return
    aside(
        f"Training {kind}s that the models of one side predict with higher {training.output}, by "
        f"more than chance (Welch's t-test, false discovery rate {SHARE.text(RATE)}). An example "
        "that only one side was trained on stands first on that side."
    )
    bar_of_chosen(study, location, "train", training, partial(export_training, study, location))
    gallery(
        study,
        "train",
        [_group(training, found, key, about, kind, location) for key in SIDES],
        SIDE,
        "learned_by_one",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
        selected=location.selected_train,
        most=MOST_PICKED,
        on_select=partial(select, split="train"),
    )


def _group(
    training: Examples,
    found: Learned,
    key: Key,
    about: dict[str, Any],
    kind: str,
    location: Location,
) -> Group:
    rows = found.by(key)
    own, other = short(about[key]["name"]), short(about[OTHER[key]]["name"])
    sign: Sign = key
    more = found.a - found.b if key == "a" else found.b - found.a
    largest = float(more[rows].max(initial=0)) or 1.0
    return Group(
        f"Training {kind}s that {own} learned and {other} did not",
        [
            _card(training, int(row), found, float(more[row]), largest, location)
            for row in rows[:SHOWN]
        ],
        title=f"Learned by {own}",
        words=f"{len(rows):,} training {kind}s, with higher {training.output} in {own}. Numbers: "
        f"the difference, and the {training.output} in A and in B.",
        sign=sign,
        makeup=makeup(training, rows),
        empty="None: no difference is more than chance.",
    )


def _card(
    training: Examples, row: int, found: Learned, more: float, largest: float, location: Location
) -> Card:
    a, b = OUTPUT.text(found.a[row]), OUTPUT.text(found.b[row])
    hint = f"{training.output} {a} in A, {b} in B"
    card = training_card(row, training.table.iloc[row].to_dict(), hint, location, {})
    return replace(card, note=f"A {a} · B {b}", score=CHANGE.text(more), bar=more / largest)
