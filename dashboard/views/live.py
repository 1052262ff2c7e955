"""Live query: one's own picture or text, what the models say of it, and which data say so."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from html import escape

import streamlit as st

from dashboard.location import INFLUENTIAL, SIMILAR, read_location
from dashboard.names import short
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.controls.live_result_download import result_export
from dashboard.parts.gallery.example_header import SIDE as SUBJECT_SIDE
from dashboard.parts.gallery.example_header import odds, probabilities
from dashboard.parts.gallery.explanation import (
    Influences,
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
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.read.live_queries import MEGABYTES, ask, warm_up
from dashboard.read.studies import badge, examples, open_study
from engine.applications.live import KEPT, Answer
from engine.data.pictures import SUFFIXES
from engine.store.errors import DataloupeError
from engine.store.layout import TRAK
from engine.study.live_and_maps import has_live, read_live
from engine.study.neighbours import read_similarity

SIDE = 112
LONGEST_TEXT = 20_000

study = open_study()
location = read_location(study)
algorithm = location.algorithm
text = study.spec.task.name.startswith("text")
kind = "text" if text else "picture"


def given() -> bytes | str | None:
    """What the reader asks about. The session holds it, so that looking at a training example and
    coming back does not lose it, until it is taken away or the tab is closed."""
    if text:
        st.session_state["own_text"] = st.session_state.get("live_given", "")
        st.text_area(
            "Your text", key="own_text", max_chars=LONGEST_TEXT, height=160, on_change=take
        )
        return st.session_state.get("live_given")
    file = st.file_uploader(
        "Your picture",
        type=sorted(suffix.removeprefix(".") for suffix in SUFFIXES),
        key="own_picture",
        max_upload_size=MEGABYTES,
        on_change=take,
    )
    held: bytes | None = st.session_state.get("live_given")
    if file is None and held is not None:
        st.button("Take the picture away", icon=":material/close:", on_click=forget, key="forget")
    return held


def take() -> None:
    """Callback: hold what was given; forget what was there."""
    forget()
    if text:
        found = st.session_state["own_text"].strip() or None
    else:
        file = st.session_state["own_picture"]
        found = None if file is None or file.size > MEGABYTES * 2**20 else file.getvalue()
    if found is not None:
        st.session_state["live_given"] = found


def forget() -> None:
    """Keep nothing of the last question."""
    for name in ("live_given", "live_asked", "live_answer", "explained"):
        st.session_state.pop(name, None)


def answered(content: bytes | str, label: int | None) -> Answer:
    """The answer, from this session's last question if it was the same."""
    raw = content.encode() if isinstance(content, str) else content
    asked = hashlib.sha256(raw).hexdigest(), str(study.root), algorithm, label
    if st.session_state.get("live_asked") != asked:
        with st.spinner(f"Asking about your {kind} (the first question loads the models)…"):
            st.session_state["live_answer"] = ask(study, algorithm, content, label)
        st.session_state["live_asked"] = asked
    found: Answer = st.session_state["live_answer"]
    return found


def subject(answer: Answer, classes: list[str]) -> None:
    """What was given, as it was understood, and what the models say of it."""
    shown = "" if answer.text is None else f"<blockquote>{escape(answer.text)}</blockquote>"
    if answer.thumbnail is not None:
        side = thumbnail_side(study.dataset.cell, SUBJECT_SIDE)
        source = f"data:image/png;base64,{base64.b64encode(answer.thumbnail).decode()}"
        shown = (
            f'<img class="dl-own" src="{source}" alt="Your picture, re-encoded" '
            f'style="width:{side}px">'
        )
    predicted, margin = classes[answer.predicted], f"{answer.margin:+z.2f}".replace("-", "−")
    of = "1 checkpoint" if answer.predicting == 1 else f"{answer.predicting} checkpoints"
    facts = {
        "Predicted": f"{escape(short(predicted))}<small>by {of}</small>",
        "Confidence": f"{answer.probabilities[answer.predicted]:.1%}",
        "Margin": f"{margin}<small>{odds(answer.margin, short(classes[answer.label]))}</small>",
    }
    entries = "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in facts.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in answer.notes)
    listed = f'<ul class="dl-list">{notes}</ul>' if notes else ""
    likeliest = probabilities(classes, answer.probabilities, classes[answer.label])
    st.html(
        f'<div class="dl-subject">{shown}{listed}<dl class="dl-facts">{entries}</dl>'
        f"{likeliest}</div>"
    )


# --- is there anything to ask? -----------------------------------------------------------------

st.html(title(f"Ask about your own {kind}", "what supports and opposes its prediction"))
if not has_live(study, algorithm):
    building(
        "Live queries work as soon as they are prepared",
        lambda study: has_live(study, algorithm),
        algorithm,
    )
    st.stop()
live = read_live(study, algorithm)
if not live.checkpoints:
    notice("This study takes no live queries", f"No checkpoint is kept for them: {live.reason}.")
    st.stop()
warm_up(study, algorithm)

# --- the question ------------------------------------------------------------------------------

classes = study.dataset.classes
side, right = st.columns([0.24, 0.76], gap="large")
with side:
    content = given()
    if content is None:
        st.html(
            f'<p class="dl-aside">Your {kind} is worked on in memory and is gone when you take it '
            "away or close this tab. Nothing of it is stored, unless you export the answer.</p>"
        )
if content is None:
    with right:
        notice(
            f"Which {kind} shall be explained?",
            f"{'Write one' if text else 'Drop in a file, or choose one'}. You will see what the "
            f"models say of it, which training {kind}s support and oppose that, and which the "
            "models see as alike.",
        )
    st.stop()

with side:
    chosen = st.session_state.get("explained")
    try:
        answer = answered(content, None if chosen is None else classes.index(chosen))
    except DataloupeError as error:
        with right:
            notice(f"This {kind} cannot be explained", str(error), kind="error")
        st.stop()
    subject(answer, classes)
    st.selectbox(
        "Explain the margin of",
        classes,
        index=None,
        placeholder=f"{short(classes[answer.predicted])}, as predicted",
        format_func=short,
        key="explained",
    )

# --- the answer --------------------------------------------------------------------------------

with right:
    wants, k = location.show, min(location.k, KEPT)
    with st.container(horizontal=True, vertical_alignment="center"):
        show_switch(wants)
        if wants != SIMILAR:
            whole = badge(study, algorithm, TRAK)
            reason = f"Live: {answer.scoring} of {whole.checkpoints} checkpoints. {whole.reason}"
            quality_badge(
                replace(
                    whole,
                    method="TRAK, live",
                    checkpoints=answer.scoring,
                    lds=None,
                    slope=None,
                    reason=reason,
                )
            )
        st.space("stretch")
        result_export(study, algorithm, answer, location.k)
        sides(location.k, min(KEPT, study.dataset.n_train))

    training = examples(study, "train")
    label, predicted = classes[answer.label], classes[answer.predicted]
    groups: list[Group] = []
    if wants != SIMILAR:
        influences = Influences(
            answer.support[:k],
            answer.support_scores[:k],
            answer.oppose[:k],
            answer.oppose_scores[:k],
            answer.support_total,
            answer.oppose_total,
        )
        groups += influence_groups(training, influences, label, predicted, location)
    if wants != INFLUENTIAL:
        wait_for_similarity(study, algorithm, kind)
        similarity = read_similarity(study, algorithm)
        alike = answer.similar[:k], answer.similarities[:k]
        groups.append(similar_group(training, *alike, similarity, label, location))
        stored = similarity.stored
        groups = compared(
            groups, answer.similar[:stored], answer.support[:stored], answer.oppose[:stored]
        )
    influence_gallery(study, training, groups, kind, location)
