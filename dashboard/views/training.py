"""Training view: one training example, and the test predictions that it helps and hurts most."""

from __future__ import annotations

from functools import partial
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, EXPLORE, Location, go, read_location
from dashboard.names import plain, short
from dashboard.parts.charts.influence_rank import influence_rank
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.gallery.cards import (
    influence_cards,
    influenced_cards,
    signed,
    similar_cards,
    weight_cards,
)
from dashboard.parts.gallery.example_header import subject
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.gallery.similar_examples import conflict_words, similar_words, with_conflicts
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.read.studies import (
    badge,
    examples,
    open_study,
    requested_row,
    typed_id,
    weights,
    what_it_shows,
)
from engine.study.methods import has_scores
from engine.study.neighbours import find_neighbours, has_neighbours, read_similarity
from engine.study.rankings import read_top_of_training
from engine.study.reader import StudyReader
from engine.study.training_datamodels import has_training_datamodels, read_training_datamodel

SIDE = 112
HEAVIEST = 24

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)

if not study.has_data:
    building(f"The training {kind}s appear first", lambda study: study.has_data, algorithm)
    st.stop()

training = examples(study, "train", algorithm)
row, hint = requested_row(study, "train", location.train)


def show(row: int) -> None:
    """Look at another training example here."""
    go(train=str(training.table["id"].iloc[row]))


def ask() -> None:
    """Look at the training example that was typed."""
    go(train=typed_id(study, "train", st.session_state["open_training"]))


def open_by_name() -> None:
    """A text field that opens any training example."""
    st.text_input(
        "Open by id, or row as #17",
        placeholder=str(training.table["id"].iloc[0]),
        key="open_training",
        on_change=ask,
        width=220,
    )


def similar_training(row: int, label: str, study: StudyReader, here: Location) -> None:
    """The training examples most like one, with those of another label marked."""
    if not has_neighbours(study, algorithm):
        aside(f"Similar training {kind}s appear here after `dataloupe build {study.root}`.")
        return
    similarity = read_similarity(study, algorithm)
    if not similarity.checkpoints:
        aside(f"Which training {kind}s are similar is not known: {similarity.reason}.")
        return
    k = min(here.k, similarity.stored)
    found = find_neighbours(study, "train", row, k, algorithm)
    cards = with_conflicts(similar_cards(training, *found, here), label)
    group = Group(
        "Similar training examples",
        cards,
        title="Similar",
        sign="similar",
        words=similar_words(similarity, len(cards), conflict_words(cards, label, kind)),
        empty=f"It is the only training {kind}.",
    )
    gallery(study, "train", [group], SIDE, "similar", show)


def own_datamodel(row: int, study: StudyReader, here: Location) -> None:
    """What the model says of this training example itself, and whose doing that is."""
    found = read_training_datamodel(study, row, algorithm)
    helping, hurting = found.strongest(here.k, 1), found.strongest(here.k, -1)
    largest = max(float(np.abs(weights).max(initial=0)) for _, weights in (helping, hurting)) or 1.0
    memorised = signed(found.itself, max(abs(found.itself), largest))
    st.html(
        f"<h2>What its own prediction depends on</h2><p>Being trained on changes its own margin by "
        f"<b>{memorised}</b>. From a datamodel of this example, fitted to the subset runs "
        f"(correlation with runs it was not fitted to: {found.correlation:.2f}).</p>"
    )
    groups = [
        Group(
            "Others that raise its own margin",
            influence_cards(training, *helping, largest, here, None, 1.0),
            title="Raise its margin",
            words="With them in training, the models are surer of its label.",
            sign="support",
            empty="No other training example raises it.",
        ),
        Group(
            "Others that lower its own margin",
            influence_cards(training, *hurting, largest, here, None, 1.0),
            title="Lower its margin",
            words="With them in training, the models doubt its label more.",
            sign="oppose",
            empty="No other training example lowers it.",
        ),
    ]
    gallery(study, "train", groups, SIDE, "own", show)


def aside(words: str) -> None:
    """A quiet line in a part's place."""
    st.html(f'<p class="dl-aside">{escape(words)}</p>')


# --- no example, or one that does not exist ----------------------------------------------------

if row is None:
    if location.train is None:
        notice(
            f"Which training {kind}?",
            f"Every training {kind} in Explain leads here. Or take one that weighs much in the "
            "whole study, or any by its id.",
        )
    else:
        notice(
            f"There is no training {kind} “{short(location.train)}”",
            f"This study has {len(training.table):,} of them.{hint} The link may belong to another "
            "study, or the data have changed since it was made.",
        )
    with st.container(horizontal=True, horizontal_alignment="center"):
        open_by_name()
    if method is not None:
        weight = weights(study, algorithm, method)
        group = Group(
            "Most influential",
            weight_cards(training, weight.order[:HEAVIEST], weight, location),
            title="Most influential",
            words="Largest sum of influence, helping and hurting, over all test predictions",
        )
        gallery(study, "train", [group], SIDE, "heaviest", show)
    st.stop()

# --- what it is, and the way back --------------------------------------------------------------

example = training.table.iloc[row].to_dict()
tests = examples(study, "test", algorithm)
asked, _ = requested_row(study, "test", location.test)
came_from = None if asked is None else str(tests.table["id"].iloc[asked])

with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title(f"Training {kind} {short(example['id'])}", f"labelled {short(example['label'])}"))
    st.space("stretch")
    copy_link("copy")
    with st.container(horizontal=True, gap="small", width="content"):
        back = "Explore" if came_from is None else f"Back to {plain(came_from)}"
        if st.button(back, icon=":material/arrow_back:", key="back"):
            # The query stays as it is, so that one step back returns here.
            to = EXPLORE if came_from is None else EXPLAIN
            st.switch_page(to, query_params=st.query_params.to_dict())

# --- whom it helps and hurts, painted anew for another k ----------------------------------------


def answer(row: int, study: StudyReader, here: Location) -> None:
    """The test predictions that it helps and hurts, then the training data like it."""
    if method is None:
        building(
            "The predictions it helps and hurts appear here as soon as they are scored",
            lambda study: has_scores(study, algorithm),
            algorithm,
        )
        similar_training(row, str(example["label"]), study, here)
        return

    trust = badge(study, algorithm, method)
    units = " Numbers are changes of that margin." if trust.calibrated else ""
    top = read_top_of_training(study, row, algorithm, method)
    stored = top["support_index"].shape[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        quality_badge(trust)
        st.space("stretch")
        k = sides(here.k, stored)

    groups = []
    parts = {}
    for sign in ("support", "oppose"):
        rows, scores = top[f"{sign}_index"][:k], top[f"{sign}_score"][:k]
        parts[sign] = rows[rows >= 0], scores[rows >= 0]
    largest = max(float(np.abs(scores).max(initial=0)) for _, scores in parts.values())
    rows, scores = parts["support"]
    groups.append(
        Group(
            "Predictions it helps most",
            influenced_cards(tests, rows, scores, largest, here, trust.slope),
            title="Helps most",
            words="Test predictions that it trained the model towards: without it, so say the "
            "scores, the margin of their true label would be lower." + units,
            sign="support",
            empty="It helps no test prediction.",
        )
    )
    rows, scores = parts["oppose"]
    groups.append(
        Group(
            "Predictions it hurts most",
            influenced_cards(tests, rows, scores, largest, here, trust.slope),
            title="Hurts most",
            words="Test predictions that it pulled the model away from: without it, so say the "
            "scores, the margin of their true label would be higher." + units,
            sign="oppose",
            empty="It hurts no test prediction.",
        )
    )
    gallery(
        study,
        "test",
        groups,
        SIDE,
        "influenced",
        lambda row: st.switch_page(
            EXPLAIN, query_params=here.parameters(test=str(tests.table["id"].iloc[row]))
        ),
    )
    similar_training(row, str(example["label"]), study, here)
    if has_training_datamodels(study, algorithm):
        own_datamodel(row, study, here)


# --- the example beside it ---------------------------------------------------------------------

side, beside = st.columns([0.24, 0.76], gap="large")
with side:
    subject(study, algorithm, "train", row, example)
    if "predicted" in example and not example["correct"]:
        st.html(
            '<p class="dl-aside">The checkpoints were trained on it and still disagree: look '
            "whether its label is right.</p>"
        )
    if method is not None:
        slope = badge(study, algorithm, method).slope or 1.0
        weight = weights(study, algorithm, method).scaled(slope)
        influence_rank(row, training, weight, study.dataset.n_test, kind)

with beside:
    part(location, partial(answer, row))
