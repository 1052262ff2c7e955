"""Live query: your own picture or text, its prediction, and the training data behind it."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from html import escape

import streamlit as st

from dashboard.location import BOTH, SIMILAR, WORDS, read_location
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.controls.live_result_download import result_export
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.curation.decision_export import export_training
from dashboard.parts.gallery.example_header import SIDE as SUBJECT_SIDE
from dashboard.parts.gallery.example_header import probabilities
from dashboard.parts.gallery.explanation import (
    influence_gallery,
    influence_groups,
    similar_group,
)
from dashboard.parts.gallery.gallery import Group, thumbnail_side
from dashboard.parts.gallery.similar_examples import (
    compared,
    show_switch,
    wait_for_similarity,
)
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.page_title import title
from dashboard.parts.outputs.found_part import NAMES, choose_found, show_found
from dashboard.parts.outputs.live_scores import influences_of
from dashboard.parts.outputs.own_example import choose_own_output, facts, known_of, own_output
from dashboard.parts.outputs.own_parts import read_given
from dashboard.parts.outputs.wording import influence_words, question
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.text.same_words import (
    overlap_line,
    same_words_group,
    with_shared_words,
    with_words_rank,
)
from dashboard.parts.text.shown_text import text_html
from dashboard.permissions import session
from dashboard.read.live_queries import ask, warm_up
from dashboard.read.studies import examples, open_study, what_it_shows
from engine.applications.live import KEPT, Query, QueryResult, live_stamps
from engine.store.errors import DataloupeError, UntrustedCode
from engine.store.quantities import numbers_mean
from engine.study.capabilities import missing
from engine.study.live_and_maps import has_live, read_live
from engine.study.measured_quality import live_badge
from engine.study.neighbours import read_similarity
from engine.study.output_names import default_output
from engine.study.similar_texts import COMPARED, rows_similar_to_text
from engine.study.trust import require_trust
from engine.tasks import Given

HOW_TO_GIVE = {
    "picture": "Drop a file, or choose one.",
    "text": "Write one.",
    "source": "Write a source, whose target the models generate, or a source => a target.",
    "pair": "Give both to see how well they fit, or one of them: models then find the other among "
    "the test pairs.",
}

study = open_study()
location = read_location(study)
algorithm = location.algorithm
kind = what_it_shows(study)
own = "picture or caption" if kind == "pair" else kind
"""What a person is asked for; once it is given, what that was."""
answers = study.has_data and study.dataset.outcomes == "exact"
"""Whether models generate texts."""


def explained(given: Given, output: str | None) -> QueryResult:
    """The explanation, reused if this session's last query and the models were the same."""
    by: int | None = st.session_state.get("live_completed_by")
    key = _digest(given), output, algorithm, live_stamps(study, algorithm)
    if st.session_state.get("live_key") != key or not _is_completed_by(by):
        query = Query(study.root, algorithm, given, output, by)
        with st.spinner(f"Explaining your {own} (the first query loads the models)…"):
            st.session_state["live_answer"] = ask(query, session())
        st.session_state["live_key"] = key
    found: QueryResult = st.session_state["live_answer"]
    return found


def _is_completed_by(row: int | None) -> bool:
    """Whether the last answer is about this choice of the missing part; None is any."""
    completed = st.session_state["live_answer"].completed
    return row is None or completed is None or completed.by == row


def _digest(given: Given) -> tuple[tuple[str, str], ...]:
    raw = {view: one.encode() if isinstance(one, str) else one for view, one in given.items()}
    return tuple((view, hashlib.sha256(one).hexdigest()) for view, one in sorted(raw.items()))


def subject(result: QueryResult, classes: list[str]) -> None:
    """The query as the models read it, and its prediction."""
    shown = ""
    if result.thumbnail is not None:
        side = thumbnail_side(study.dataset.cell, SUBJECT_SIDE)
        source = f"data:image/png;base64,{base64.b64encode(result.thumbnail).decode()}"
        shown += (
            f'<img class="dl-own" src="{source}" alt="Your picture, re-encoded" '
            f'style="width:{side}px">'
        )
    if result.text is not None and kind != "pair":  # a caption stands in its field
        shown += text_html(result.text)
    entries = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts(study, result))
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    listed = f'<ul class="dl-list">{notes}</ul>' if notes else ""
    likeliest = ""
    if result.probabilities is not None:
        explained_class = next(iter(result.output.classes), str(result.predicted))
        likeliest = probabilities(classes, result.probabilities, explained_class)
    st.html(
        f'<div class="dl-subject">{shown}{listed}<dl class="dl-facts">{entries}</dl>'
        f"{likeliest}</div>"
    )


# --- title, and whether live queries are available ---------------------------------------------

with st.container(horizontal=True, vertical_alignment="center"):
    heading = st.empty()
    control = st.container(width="content")
heading.html(title(f"Explain your own {own}", "what supports and opposes its prediction"))
if not has_live(study, algorithm):
    building(
        "Live queries work as soon as they are prepared",
        lambda study: has_live(study, algorithm),
        algorithm,
    )
    st.stop()
live = read_live(study, algorithm)
if not live.checkpoints:
    notice("This study has no live queries", f"No checkpoint is kept for them: {live.reason}.")
    st.stop()
try:
    require_trust(study)
except UntrustedCode as error:
    notice("This study names code that is not trusted here", str(error), kind="error")
    st.stop()
warm_up(study, algorithm)

# --- the query ---------------------------------------------------------------------------------

if study.dataset.classes and (reason := missing(study, "classes")):
    # The outputs of such tasks are about the classes that an example has, and this one has none.
    notice("Live explains examples without labels", reason)
    st.stop()
classes = study.dataset.classes
side, right = st.columns([0.24, 0.76], gap="large")
with side:
    answered = st.container()  # what comes of the query stands above the fields, once it is given
    given = read_given(study)
    if not given:
        st.html(
            f'<p class="dl-aside">Your {own} is kept in memory until you remove it or close this '
            "tab. Nothing is stored unless you export the result.</p>"
        )
if not given:
    with right:
        notice(
            f"Which {own} should be explained?",
            f"{HOW_TO_GIVE['source' if answers else kind]} You will see its prediction, the "
            f"training {kind}s that support and oppose it, and similar ones.",
        )
    st.stop()
if kind == "pair":
    own = "pair" if len(given) > 1 else NAMES[next(iter(given))]

with answered:
    try:
        asked = own_output(study, location.output)
        result = explained(given, None if asked is None else asked.name)
    except DataloupeError as error:
        with right:
            notice(f"This {own} cannot be explained", str(error), kind="error")
        st.stop()
    chosen = asked or result.default
    heading.html(title(question(study, chosen, known_of(study, result)), f"for your {own}"))
    with control:
        choose_own_output(study, chosen, result)
    subject(result, classes)
    if result.completed is not None:
        choose_found(study, result.completed)

# --- the explanation ---------------------------------------------------------------------------

with right:
    if result.completed is not None:
        show_found(study, result.completed, location)
    show, k = location.show, min(location.k, KEPT)
    training = examples(study, "train")
    with st.container(horizontal=True, vertical_alignment="center"):
        show_switch(show, training.has_texts)
        shown = live_badge(study, algorithm, result.output == default_output(study))
        if show != SIMILAR:
            quality_badge(shown)
        st.space("stretch")
        result_export(study, algorithm, result, location.k)
        sides(location.k, min(KEPT, study.dataset.n_train))

    predicted = str(result.predicted)
    label = next(iter(result.output.classes), predicted)
    groups: list[Group] = []
    if show != SIMILAR:
        found = influences_of(result, k)
        known = known_of(study, result)
        words = influence_words(study, training, found.support, found.oppose, result.output, known)
        groups += influence_groups(training, found, label, predicted, location, words=words)
    if show in (SIMILAR, BOTH):
        wait_for_similarity(study, algorithm, kind)
        similarity = read_similarity(study, algorithm)
        neighbors = result.similar[:k], result.similarities[:k]
        groups.append(similar_group(training, *neighbors, similarity, label, location))
        stored = similarity.stored
        groups = compared(
            groups, result.similar[:stored], result.support[:stored], result.oppose[:stored]
        )
    if result.text is not None:
        similar, scores = rows_similar_to_text(study, result.text, max(k, COMPARED))
        overlap_line(result.support, similar)
        if show == WORDS:
            ranked = result.support, result.oppose
            same = same_words_group(training, similar[:k], scores[:k], ranked, location, None)
            groups = [*with_words_rank(groups[:1], similar), same]
        groups = with_shared_words(study, groups, result.text)
    numbers = ""
    if show != SIMILAR:
        numbers = numbers_mean(training.output, shown.method, shown.calibrated)
    bar_of_chosen(study, location, "train", training, partial(export_training, study, location))
    influence_gallery(study, training, groups, kind, location, numbers=numbers)
