"""Live query: your own picture or text, its prediction, and the training data behind it."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from html import escape

import streamlit as st

from dashboard.location import BOTH, SIMILAR, WORDS, go, read_location
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.controls.live_result_download import result_export
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.controls.uploader import uploader
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
from dashboard.parts.outputs.live_scores import influences_of
from dashboard.parts.outputs.own_example import choose_own_output, facts, known_of, own_output
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
from dashboard.read.live_queries import MEGABYTES, ask, warm_up
from dashboard.read.studies import examples, open_study, what_it_shows
from dashboard.server.uploaded_files import content_of
from engine.applications.live import KEPT, LONGEST_TEXT, QueryResult, live_stamps
from engine.data.pictures import SUFFIXES
from engine.store.errors import DataloupeError, UntrustedCode
from engine.store.quantities import numbers_mean
from engine.study.capabilities import missing
from engine.study.live_and_maps import has_live, read_live
from engine.study.measured_quality import live_badge
from engine.study.neighbours import read_similarity
from engine.study.output_names import default_output
from engine.study.similar_texts import COMPARED, rows_similar_to_text
from engine.study.trust import require_trust

SIDE = 112

study = open_study()
location = read_location(study)
algorithm = location.algorithm
kind = what_it_shows(study)
text = kind == "text"


def read_query() -> bytes | str | None:
    """The picture or text to explain.

    The session holds it until it is removed or the tab is closed, so that it is still there after
    a visit to a training example.
    """
    if text:
        st.session_state["own_text"] = st.session_state.get("live_given", "")
        st.text_area(
            "Your text", key="own_text", max_chars=LONGEST_TEXT, height=160, on_change=take
        )
        return st.session_state.get("live_given")
    file = uploader(
        "Your picture",
        key="own_picture",
        megabytes=MEGABYTES,
        type=sorted(suffix.removeprefix(".") for suffix in SUFFIXES),
        on_change=take,
    )
    held: bytes | None = st.session_state.get("live_given")
    if file is None and held is not None:
        st.button("Remove picture", icon=":material/close:", on_click=forget, key="forget")
    return held


def take() -> None:
    """Callback: hold the new query; forget the last one."""
    forget()
    if text:
        found = st.session_state["own_text"].strip() or None
    else:
        file = st.session_state["own_picture"]
        found = None if file is None or file.size > MEGABYTES * 2**20 else content_of(file)
    if found is not None:
        st.session_state["live_given"] = found


def forget() -> None:
    """Keep nothing of the last query."""
    for name in ("live_given", "live_key", "live_answer"):
        st.session_state.pop(name, None)
    go(output=None)


def explained(content: bytes | str, output: str | None) -> QueryResult:
    """The explanation, reused if this session's last query and the models were the same."""
    raw = content.encode() if isinstance(content, str) else content
    key = hashlib.sha256(raw).hexdigest(), output, algorithm, live_stamps(study, algorithm)
    if st.session_state.get("live_key") != key:
        with st.spinner(f"Explaining your {kind} (the first query loads the models)…"):
            st.session_state["live_answer"] = ask(study, algorithm, content, output, session())
        st.session_state["live_key"] = key
    found: QueryResult = st.session_state["live_answer"]
    return found


def subject(result: QueryResult, classes: list[str]) -> None:
    """The query as the models read it, and its prediction."""
    shown = "" if result.text is None else text_html(result.text)
    if result.thumbnail is not None:
        side = thumbnail_side(study.dataset.cell, SUBJECT_SIDE)
        source = f"data:image/png;base64,{base64.b64encode(result.thumbnail).decode()}"
        shown = (
            f'<img class="dl-own" src="{source}" alt="Your picture, re-encoded" '
            f'style="width:{side}px">'
        )
    entries = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts(result))
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
heading.html(title(f"Explain your own {kind}", "what supports and opposes its prediction"))
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
    content = read_query()
    if content is None:
        st.html(
            f'<p class="dl-aside">Your {kind} is kept in memory until you remove it or close this '
            "tab. Nothing is stored unless you export the result.</p>"
        )
if content is None:
    with right:
        notice(
            f"Which {kind} should be explained?",
            f"{'Write one' if text else 'Drop a file, or choose one'}. You will see its "
            f"prediction, the training {kind}s that support and oppose it, and similar ones.",
        )
    st.stop()

with side:
    try:
        chosen = own_output(study, location.output)
        result = explained(content, chosen.name)
    except DataloupeError as error:
        with right:
            notice(f"This {kind} cannot be explained", str(error), kind="error")
        st.stop()
    heading.html(title(question(chosen, known_of(study, result)), f"for your {kind}"))
    with control:
        choose_own_output(study, chosen, result)
    subject(result, classes)

# --- the explanation ---------------------------------------------------------------------------

with right:
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
        words = influence_words(training, found.support, found.oppose, result.output, predicted)
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
