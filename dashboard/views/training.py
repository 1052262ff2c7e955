"""Training: one training example, and the test predictions that it helps and hurts most."""

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
    plain_cards,
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
from dashboard.parts.outputs.wording import shortened
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.text.find_text import find_text
from dashboard.parts.text.token_view import can_split, tokens_on_request
from dashboard.read.columns import output_noun
from dashboard.read.influenced import strongest_of_training
from dashboard.read.studies import (
    badge,
    examples,
    open_study,
    requested_row,
    typed_id,
    weights,
    what_it_shows,
)
from engine.store.quantities import CORRELATION, INFLUENCE, numbers_mean
from engine.study.methods import has_scores
from engine.study.neighbours import find_neighbours, has_neighbours, read_similarity
from engine.study.output_names import default_output, resolve_output
from engine.study.rankings import read_top_of_training
from engine.study.reader import StudyReader
from engine.study.training_datamodels import has_training_datamodels, read_training_datamodel

SIDE = 112
MOST_INFLUENTIAL = 24

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)

if not study.has_data:
    building(f"The training {kind}s appear first", lambda study: study.has_data, algorithm)
    st.stop()

training = examples(study, "train", algorithm)
row, hint = requested_row(study, "train", location.train)


def open_example(row: int) -> None:
    """Show a different training example on this page."""
    go(train=str(training.table["id"].iloc[row]))


def open_typed() -> None:
    """Callback: show the training example whose id was typed."""
    go(train=typed_id(study, "train", st.session_state["open_training"]))


def open_by_id() -> None:
    """A text field that opens any training example by its id."""
    st.text_input(
        "Open by id, or row as #17",
        placeholder=str(training.table["id"].iloc[0]),
        key="open_training",
        on_change=open_typed,
        width=220,
    )


def similar_training(row: int, label: str, study: StudyReader, here: Location) -> None:
    """The training examples most similar to one, marked where their label differs."""
    if not has_neighbours(study, algorithm):
        aside(f"Similar training {kind}s appear here after `dataloupe build {study.root}`.")
        return
    similarity = read_similarity(study, algorithm)
    if not similarity.checkpoints:
        aside(f"Similar training {kind}s are not available: {similarity.reason}.")
        return
    k = min(here.k, similarity.stored)
    found = find_neighbours(study, "train", row, k, algorithm)
    cards, words = similar_cards(training, *found, here), ""
    if "label" in training.codes:
        cards = with_conflicts(cards, label)
        words = conflict_words(cards, label, kind)
    group = Group(
        "Similar training examples",
        cards,
        title="Similar",
        sign="similar",
        words=similar_words(similarity, len(cards), words),
        empty=f"It is the only training {kind}.",
    )
    gallery(study, "train", [group], SIDE, "similar", open_example)


def own_datamodel(row: int, study: StudyReader, here: Location) -> None:
    """The example's effect on its own prediction, and the other examples that influence it."""
    found = read_training_datamodel(study, row, algorithm)
    helping, hurting = found.strongest(here.k, 1), found.strongest(here.k, -1)
    largest = max(float(np.abs(weights).max(initial=0)) for _, weights in (helping, hurting)) or 1.0
    output = training.output
    sure = "label" in training.codes
    more, less = (
        f"are {word} confident in its label" if sure else f"give it a {size} {output}"
        for word, size in (("more", "higher"), ("less", "lower"))
    )
    own_effect = INFLUENCE.text(found.itself)
    st.html(
        "<h2>What its own prediction depends on</h2><p>Training on this example changes its own "
        f"{escape(output)} by <b>{own_effect}</b>, according to a datamodel fitted to the subset "
        f"runs (correlation on held-out runs: {CORRELATION.text(found.correlation)}).</p>"
    )
    groups = [
        Group(
            f"Others that raise its own {output}",
            influence_cards(training, *helping, largest, here, None, helping[1]),
            title=f"Raise its {output}",
            words=f"Models trained on them {more}.",
            sign="support",
            empty="No other training example raises it.",
        ),
        Group(
            f"Others that lower its own {output}",
            influence_cards(training, *hurting, largest, here, None, hurting[1]),
            title=f"Lower its {output}",
            words=f"Models trained on them {less}.",
            sign="oppose",
            empty="No other training example lowers it.",
        ),
    ]
    gallery(study, "train", groups, SIDE, "own", open_example)


def aside(text: str) -> None:
    """A muted line in place of a section."""
    st.html(f'<p class="dl-aside">{escape(text)}</p>')


# --- no example, or one that does not exist -----------------------------------------------------

if row is None:
    if location.train is None:
        notice(
            f"Which training {kind}?",
            f"Click any training {kind} in Explain"
            + (", choose one of the most influential below," if method is not None else "")
            + " or enter an id.",
        )
    else:
        notice(
            f"There is no training {kind} “{short(location.train)}”",
            f"This study has {len(training.table):,}.{hint} The link may belong to a different "
            "study, or the data may have changed since it was created.",
        )
    with st.container(horizontal=True, horizontal_alignment="center"):
        open_by_id()
    searched = find_text(
        study, "train", training, lambda rows: plain_cards(training, rows, location), open_example
    )
    if method is not None and not searched:
        weight = weights(study, algorithm, method)
        group = Group(
            "Most influential",
            weight_cards(training, weight.order[:MOST_INFLUENTIAL], weight, location),
            title="Most influential",
            words="Largest sum of |influence| over all test predictions, "
            f"{weight.unit}, by {badge(study, algorithm, method).method}",
        )
        gallery(study, "train", [group], SIDE, "heaviest", open_example)
    st.stop()

# --- title and back button ----------------------------------------------------------------------

example = training.table.iloc[row].to_dict()
tests = examples(study, "test", algorithm)
test_row, _ = requested_row(study, "test", location.test)
came_from = None if test_row is None else str(tests.table["id"].iloc[test_row])

with st.container(horizontal=True, vertical_alignment="center"):
    labeled = f"labeled {short(example['label'])}" if example["label"] else ""
    st.html(title(f"Training {kind} {short(example['id'])}", labeled))
    st.space("stretch")
    copy_link("copy")
    with st.container(horizontal=True, gap="small", width="content"):
        back = "Test set" if came_from is None else f"Back to {plain(came_from)}"
        if st.button(back, icon=":material/arrow_back:", key="back"):
            # The URL's parameters stay, so the browser's Back button returns here.
            to = EXPLORE if came_from is None else EXPLAIN
            st.switch_page(to, query_params=st.query_params.to_dict())

# --- predictions it helps and hurts, redrawn when k changes -------------------------------------


def influenced(row: int, study: StudyReader, here: Location) -> None:
    """The test predictions that it helps and hurts, then similar training examples."""
    plus, minus = (effect.present for effect in tests.effects)
    if method is None:
        building(
            f"The predictions it {plus} and {minus} appear here as soon as they are scored",
            lambda study: has_scores(study, algorithm),
            algorithm,
        )
        similar_training(row, str(example["label"]), study, here)
        return

    quality = badge(study, algorithm, method)
    units = f" {numbers_mean(tests.output, quality.method, quality.calibrated)}"
    top = read_top_of_training(study, row, algorithm, method)
    stored = top["support_index"].shape[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        quality_badge(quality)
        st.space("stretch")
        k = sides(here.k, stored)

    asked = resolve_output(study, here.output)
    if asked != default_output(study):
        aside(
            f"These scores are for {study.dataset.output_title}. Those for "
            f"{shortened(asked).title} are computed on Explain, for one test {kind} at a time."
        )
    groups = []
    helped, harmed = strongest_of_training(study, row, k, algorithm, method)
    largest = max(float(np.abs(side.scores).max(initial=0)) for side in (helped, harmed))
    noun = output_noun(study.dataset)
    groups.append(
        Group(
            f"Predictions it {plus} most",
            influenced_cards(tests, helped.rows, helped.scores, largest, here, helped.amounts),
            title=f"{plus.capitalize()} most",
            words=f"Without it, the scores predict a lower {noun} for these test examples." + units,
            sign="support",
            empty=f"It {plus} no test prediction.",
        )
    )
    groups.append(
        Group(
            f"Predictions it {minus} most",
            influenced_cards(tests, harmed.rows, harmed.scores, largest, here, harmed.amounts),
            title=f"{minus.capitalize()} most",
            words=f"Without it, the scores predict a higher {noun} for these test examples."
            + units,
            sign="oppose",
            empty=f"It {minus} no test prediction.",
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
    if test_row is not None and can_split(study, algorithm, method, training):
        tokens_on_request(study, algorithm, training, test_row, row)
    similar_training(row, str(example["label"]), study, here)
    if has_training_datamodels(study, algorithm):
        own_datamodel(row, study, here)


# --- layout: the example on the left ------------------------------------------------------------

side, main = st.columns([0.24, 0.76], gap="large")
with side:
    subject(study, algorithm, "train", row, example)
    if not example.get("correct", True):
        doubted = "label" if example["label"] else "text"
        st.html(
            '<p class="dl-aside">The checkpoints were trained on it and still disagree with its '
            f"{doubted}: check whether the {doubted} is correct.</p>"
        )
    if method is not None:
        influence_rank(row, training, weights(study, algorithm, method), study.dataset.n_test, kind)

with main:
    part(location, partial(influenced, row))
