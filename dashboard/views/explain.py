"""Explain: one prediction, and the training examples that support and oppose it."""

from __future__ import annotations

from functools import partial
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import (
    BOTH,
    EXPLORE,
    SIMILAR,
    TRAINING_SET,
    WORDS,
    Location,
    go,
    largest_k_of,
    read_location,
)
from dashboard.names import short
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.downloads import export
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.curation.decision_export import export_training
from dashboard.parts.gallery.beside import PARAMETER, choose_beside, side_by_side
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.example_header import only_facts, subject
from dashboard.parts.gallery.explanation import (
    influence_gallery,
    influence_groups,
    is_mistake,
    opposers_first,
    similar_group,
)
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.gallery.origins import origins
from dashboard.parts.gallery.similar_examples import (
    compared,
    show_switch,
    wait_for_similarity,
)
from dashboard.parts.gallery.trajectory import show_way, way_of
from dashboard.parts.layout.build_progress import building, unpredicted
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.outputs.chooser import choose_output
from dashboard.parts.outputs.found_part import show_found_instead
from dashboard.parts.outputs.live_scores import influences_of, live_scores
from dashboard.parts.outputs.wording import influence_words, question_title
from dashboard.parts.quality.own_quality import own_quality
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.removal.removal_buttons import removal_buttons
from dashboard.parts.replay.exact_answer import exact_answer
from dashboard.parts.text.find_text import find_text
from dashboard.parts.text.same_words import (
    overlap_line,
    same_words_group,
    with_shared_words,
    with_words_rank,
)
from dashboard.parts.text.token_view import can_split, choose_text
from dashboard.read.influences import stored_influences
from dashboard.read.rows_in_words import mistakes_first
from dashboard.read.studies import (
    badge,
    examples,
    open_study,
    requested_row,
    slice_rows,
    what_it_shows,
)
from dashboard.slice_parameters import position_in_slice, rows_text
from engine.store.layout import TRAK
from engine.store.quantities import numbers_mean
from engine.study.capabilities import has
from engine.study.example_outputs import live_missing, read_known
from engine.study.measured_quality import live_badge
from engine.study.methods import has_scores
from engine.study.neighbours import find_neighbours, read_similarity
from engine.study.output_names import concrete, default_output, resolve_output
from engine.study.rankings import find_influences, read_top
from engine.study.reader import StudyReader
from engine.study.similar_texts import COMPARED, rows_similar_in_words

SIDE = 112
MISTAKES = 24

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)

if not study.has_data:
    building(f"The test {kind}s appear first", lambda study: study.has_data, algorithm)
    st.stop()

found = examples(study, "test", algorithm)
row, hint = requested_row(study, "test", location.test)


def open_example(row: int) -> None:
    """Explain a different test example on this page."""
    go(test=str(found.table["id"].iloc[row]))


def button_to_explore(label: str) -> None:
    """Go back to the slice in Explore. The URL's parameters stay, so Back returns here."""
    if st.button(label, icon=":material/arrow_back:", key="back"):
        st.switch_page(EXPLORE, query_params=st.query_params.to_dict())


def worst() -> tuple[np.ndarray, str, str]:
    """The predictions to look at first: (rows, their title, how they are ordered)."""
    if found.has_outcomes:
        wrong = mistakes_first(found)[:MISTAKES]
        if "confidence" in found.table:
            return wrong, "Most confident mistakes", "Wrong predictions, most confident first"
        return (
            wrong,
            "Worst mistakes",
            f"Wrong predictions with the lowest {found.output.removesuffix('s')}s",
        )
    if "error" in found.numbers:
        largest = np.argsort(-np.abs(found.numbers["error"]), kind="stable")[:MISTAKES]
        return largest, "Largest errors", "Predictions farthest from their true labels"
    lowest = np.argsort(found.numbers["output"], kind="stable")[:MISTAKES]
    return lowest, f"Lowest {found.output}", f"In the order of {study.dataset.output_title}"


# --- no example, or one that does not exist -----------------------------------------------------

if row is None:
    if location.test is None:
        hint_text = "Choose one in the test set"
        if found.has_predictions:
            start = "mistakes" if found.has_outcomes else "predictions"
            hint_text += f", or start with one of the {start} below"
        hint_text += "."
        notice(f"Which test {kind} should be explained?", hint_text)
    else:
        notice(
            f"There is no test {kind} “{short(location.test)}”",
            f"This study has {len(found.table):,}.{hint} The link may belong to a different "
            "study, or the data may have changed since it was created.",
        )
    with st.container(horizontal=True, horizontal_alignment="center"):
        button_to_explore("Go to the test set")
    searched = find_text(
        study, "test", found, lambda rows: test_cards(found, rows, location), open_example
    )
    if found.has_predictions and not searched:
        mistakes, name, order = worst()
        cards = test_cards(found, mistakes, location)
        group = Group(
            name,
            cards,
            title=name,
            words=order,
            empty="None: every prediction is right.",
        )
        gallery(study, "test", [group], SIDE, "mistakes", open_example)
    st.stop()

# --- position in the slice ----------------------------------------------------------------------

example = found.table.iloc[row].to_dict()
output = resolve_output(study, location.output)
known = read_known(study, "test", row, algorithm)
stored, lacking = known.is_stored(study, output), live_missing(study, algorithm)
rows = slice_rows(study, found, location)
place, before, after = position_in_slice(rows, row)

where = f"<b>{place:,}</b> of" if place is not None else "<b>not among</b>"
which = location.slice.words(found.output)
of_slice = f"{len(rows):,} · {escape(which)}" if which else f"{len(rows):,}"

with st.container(horizontal=True, vertical_alignment="center"):
    st.html(question_title(study, output, example, known))
    with st.container(
        horizontal=True,
        vertical_alignment="center",
        gap="small",
        width="content",
        key="explain_bar",
    ):
        st.html(f'<div class="dl-where">{where} {of_slice}</div>', width="content")
        if method is not None:
            choose_output(study, output, known, default_output(study), lacking)
        if method is not None and stored:
            choose_beside(study, after, found)
        copy_link("copy")
        button_to_explore("Test set")
        st.button(
            "Previous",
            shortcut="Left",
            disabled=before is None,
            on_click=open_example,
            args=(before,),
            key="previous",
        )
        st.button(
            "Next",
            shortcut="Right",
            disabled=after is None,
            on_click=open_example,
            args=(after,),
            key="next",
        )

# --- supporting and opposing examples, redrawn when k changes -----------------------------------


def mistaken(here: Location) -> bool:
    """Whether the page is about a wrong prediction, by the output of the true label."""
    return here.output is None and is_mistake(example)


def explanation(row: int, study: StudyReader, here: Location) -> None:
    """The requested training examples, below the controls that choose them."""
    label, test = str(example["label"]), str(example["id"])
    show = here.show
    with st.container(horizontal=True, vertical_alignment="center", key="answer_bar"):
        show_switch(show, found.has_texts)
        if method is not None and (stored or not lacking):
            shown = (
                badge(study, algorithm, method) if stored else live_badge(study, algorithm, False)
            )
            if show != SIMILAR:
                quality_badge(shown)
        st.space("stretch")
        if method is not None and (stored or not lacking):
            by = method if stored else TRAK
            export(study, row, test, here.k, algorithm, by, here.output)
        sides(here.k, largest_k_of(study))

    if show not in (SIMILAR, WORDS) and method is None:
        building(
            "Supporting and opposing training data appear here as soon as they are scored",
            lambda study: has_scores(study, algorithm),
            algorithm,
        )
        return
    if show in (SIMILAR, BOTH):
        wait_for_similarity(study, algorithm, kind)

    training = examples(study, "train")
    groups: list[Group] = []
    scores, strongest = None, [np.empty(0, np.int64)] * 2
    if method is not None and stored:
        top = read_top(study, algorithm, method)
        strongest = [top[f"{sign}_index"][row] for sign in ("support", "oppose")]
    elif method is not None:
        scores = live_scores(study, algorithm, row, output)
        if scores is None:
            return
        strongest = [scores.support, scores.oppose]
    if show != SIMILAR and method is not None:
        if scores is None:
            influences = stored_influences(study, row, here.k, algorithm, method)
        else:
            influences = influences_of(scores, here.k)
        # Imported scores may come without predictions.
        predicted = label if "predicted" not in example else str(example["predicted"])
        effects = None
        if here.output is not None or not has(study, "classes"):
            meant = concrete(study, output, known.label, known.predicted)
            effects = influence_words(
                study, training, influences.support, influences.oppose, meant, known
            )
        groups += influence_groups(training, influences, label, predicted, here, test, effects)
    if show in (SIMILAR, BOTH):
        similarity = read_similarity(study, algorithm)
        neighbors = find_neighbours(study, "test", row, here.k, algorithm)
        groups.append(similar_group(training, *neighbors, similarity, label, here, test))
        if method is not None:
            nearest, _ = find_neighbours(study, "test", row, similarity.stored, algorithm)
            groups = compared(groups, nearest, *strongest)
    if found.has_texts:
        text = str(example["text"])
        similar, likeness = rows_similar_in_words(study, "test", row, max(here.k, COMPARED))
        if method is not None:
            found_rows = find_influences(study, row, COMPARED, algorithm, method)
            overlap_line(found_rows[0] if scores is None else scores.support, similar)
        if show == WORDS:
            same = same_words_group(
                training,
                similar[: here.k],
                likeness[: here.k],
                (strongest[0], strongest[1]),
                here,
                test,
            )
            groups = [*with_words_rank(groups[:1], similar), same]
        groups = with_shared_words(study, groups, text)
    numbers = ""
    if show != SIMILAR and method is not None:
        numbers = numbers_mean(found.output, shown.method, shown.calibrated)
    wrong = mistaken(here)
    if wrong:
        groups = opposers_first(groups)
    bar_of_chosen(study, here, "train", training, partial(export_training, study, here))
    influence_gallery(study, training, groups, kind, here, test, numbers)
    if show != SIMILAR and method is not None:
        # What explains a mistake is what pulled away from the true label.
        removed, who = (
            (influences.oppose, "opposers") if wrong else (influences.support, "supporters")
        )
        if len(removed):
            with st.container(horizontal=True, vertical_alignment="center"):
                removal_buttons(
                    study,
                    removed,
                    f"{len(removed)} strongest {who} of test {kind} {test}",
                    here,
                    f"What if these {who} were removed?",
                )
                if wrong:
                    st.page_link(
                        TRAINING_SET,
                        label="Review their labels",
                        icon=":material/rule:",
                        query_params=here.parameters(selected_train=rows_text(removed)),
                        help="What other labels would change is not predicted: scores are those of "
                        "training with or without an example. Relabel, export the decisions, and "
                        "build again.",
                    )
    if show not in (SIMILAR, WORDS) and method is not None:
        origins(study, row, training, scores, strongest, here, kind)
    if (
        show != SIMILAR
        and method is not None
        and can_split(study, algorithm, method if stored else TRAK, found)
    ):
        listed = [*influences.support.tolist(), *influences.oppose.tolist()]
        choose_text(study, algorithm, training, row, listed, None if stored else output)


# --- layout: the example on the left ------------------------------------------------------------

other, hint = requested_row(study, "test", st.query_params.get(PARAMETER))
if PARAMETER in st.query_params and other is None:
    notice(f"There is no test {kind} “{short(st.query_params[PARAMETER])}” to show beside", hint)
if other is not None and method is not None and stored:
    pair, scores_by = (row, other), method

    def two(study: StudyReader, here: Location) -> None:
        """Both explanations, redrawn when k changes."""
        training = examples(study, "train")
        bar_of_chosen(study, here, "train", training, partial(export_training, study, here))
        side_by_side(study, scores_by, pair, here, kind)

    part(location, two)
    st.stop()

side, main = st.columns([0.24, 0.76], gap="large")
with side:
    way = way_of(study, row)
    if way is None:
        subject(study, algorithm, "test", row, example)
    else:
        show_way(study, row, example, way, output)
        only_facts(study, algorithm, "test", row, example)
    if found.has_predictions:
        show_found_instead(study, row, found, location, open_example)
    if not found.has_predictions and method is not None:
        unpredicted(study)
    if method is not None and stored and location.show not in (SIMILAR, WORDS):
        own_quality(study, algorithm, method, row)

with main:
    part(location, partial(explanation, row))
    if method is not None and stored:
        exact_answer(study, location, row)
