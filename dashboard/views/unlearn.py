"""Unlearn: make a model forget training examples, and judge it by models that never saw them."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.location import WHAT_IF, Location, read_location
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.layout.blocks import aside, heading
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice, warning
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.removal.earlier_requests import EarlierRequest, earlier_requests
from dashboard.parts.removal.predicted_effect import (
    affected,
    effect_by_class,
    headline,
    removed_gallery,
)
from dashboard.parts.removal.removal_set_form import ButtonText, removal_choice, requested_set
from dashboard.parts.unlearn.audit_form import audit_form
from dashboard.parts.unlearn.audit_results import audit_view, which_audit, which_method
from dashboard.parts.unlearn.forget_set_margins import before_after, predicted_margins
from dashboard.parts.unlearn.unlearned_model import unlearned_model
from dashboard.read.audits import (
    AUDIT,
    BEFORE,
    EFFECT,
    MODEL,
    PANES,
    Query,
    audits,
    audits_of,
    read_query,
    title_of,
)
from dashboard.read.studies import badge, counterfactual, examples, open_study, what_it_shows
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.checks import check_scores
from engine.applications.unlearning.method_verdict import GRADES, best, method_verdict
from engine.applications.unlearning.rows import forget_set
from engine.build.retraining import Removal, check_recipe
from engine.store.errors import DataloupeError
from engine.store.text import number
from engine.study.methods import has_scores
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet

ASKING = ButtonText("Forget these {}", "Forget …", ":material/ink_eraser:")

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)

if not study.has_data or method is None:
    st.html(title("Unlearn", "make a model forget training data"))
    building(
        "What forgetting would do can be asked as soon as there are scores",
        lambda study: study.has_data and has_scores(study, algorithm),
        algorithm,
    )
    st.stop()

training = examples(study, "train", algorithm)


def others(here: RemovalSet | None) -> None:
    """Every audit, newest first; each opens its own set."""
    kept = audits(study, algorithm)
    if not kept:
        return
    heading("All audits")
    earlier_requests(study, kept, in_words, here)


def in_words(one: Audit) -> EarlierRequest:
    """An audit, to open again."""
    by = best(one)
    klom = one.of(by).forget.at_half.mean.mean
    words = (
        f"{one.created[:16].replace('T', ' ')} · {len(one.forget):,} forgotten · "
        f"{one.models} models · {GRADES[method_verdict(one, by).grade]} · {title_of(by)}, KLoM "
        f"{number(klom)}"
    )
    chosen = f"{len(one.forget):,} of the audit of {one.created[:10]}"
    return EarlierRequest(one.id, one.forget, words, chosen)


# --- the parts ---------------------------------------------------------------------------------


def effect(chosen: RemovalSet, removed: Removal, here: Location) -> None:
    """What forgetting would do, before anything runs."""
    found = counterfactual(study, here.algorithm, str(here.method), chosen)
    headline(study, found, kind, "Forgotten")
    left, right = st.columns(2, gap="large")
    with left:
        removed_gallery(study, chosen, here, kind, "To be forgotten")
    with right:
        effect_by_class(found)
    if _known(here.algorithm):
        predicted_margins(study, removed, here, kind)
    affected(study, found, here, kind)


def _known(algorithm: str) -> bool:
    """Whether models can be asked; or say why not."""
    try:
        check_scores(study, algorithm)
    except DataloupeError as error:
        aside(
            f"What models without the forgotten {kind}s would output cannot be predicted: {error}"
        )
        return False
    return True


def unlearn_and_audit(removed: Removal, kept: list[Audit], now: Query, here: Location) -> None:
    """The audit that there is, and the way to another."""
    try:
        check_recipe(study, here.algorithm)
        check_scores(study, here.algorithm)
    except DataloupeError as error:
        notice("The effect can be predicted, but not audited", str(error))
        return
    if now.audit is None:
        audit_form(study, here.algorithm, removed, kind)
        return
    audit_view(kept, now)
    heading("Unlearn by other methods, with another budget or more models")
    audit_form(study, here.algorithm, removed, kind)


def no_audit() -> None:
    """What stands where an audit would be read."""
    notice(
        "Nothing is audited yet",
        f"Under “{PANES[AUDIT]}” models unlearn, and are judged by models that never saw these "
        f"{kind}s.",
    )


def panes(chosen: RemovalSet, removed: Removal, study: StudyReader, here: Location) -> None:
    """One of the parts."""
    kept = audits_of(study, here.algorithm, removed)
    now = read_query(kept)
    if now.problems:
        warning(["This link says something that cannot be here.", *now.problems])
    default = AUDIT if kept else EFFECT
    choice("Show", PANES, now.pane, "pane", default, label_visibility="collapsed")
    if now.pane == EFFECT:
        effect(chosen, removed, here)
    elif now.pane == AUDIT:
        unlearn_and_audit(removed, kept, now, here)
    elif now.pane == BEFORE:
        if now.audit is None or now.method is None:
            no_audit()
            return
        with st.container(horizontal=True, vertical_alignment="bottom", key="audit_controls"):
            which_audit(kept, now.audit)
            which_method(now.audit, now.method)
        before_after(study, now.audit, now.method, here, kind)
    elif now.pane == MODEL:
        the_model(removed, kept, now, here)


def the_model(removed: Removal, kept: list[Audit], now: Query, here: Location) -> None:
    """A model to take away."""
    if here.algorithm in study.uploads:
        notice(
            "An upload is not unlearned",
            "The effect of forgetting can be predicted. Models are made of the study's own "
            "checkpoints: choose an algorithm of study.toml above.",
        )
        return
    if now.audit is not None and now.method is not None:
        with st.container(horizontal=True, vertical_alignment="bottom", key="audit_controls"):
            which_audit(kept, now.audit)
            which_method(now.audit, now.method)
    unlearned_model(study, here.algorithm, removed, now.audit, now.method)


# --- the page ----------------------------------------------------------------------------------

chosen = requested_set(study)
with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("Unlearn", chosen.words if chosen else "make a model forget training data"))
    st.space("stretch")
    if chosen is not None:
        st.page_link(
            WHAT_IF,
            label="What if",
            icon=":material/content_cut:",
            query_params=location.parameters(set=chosen.key),
        )
    quality_badge(badge(study, algorithm, method))
    copy_link("copy")
if chosen is None:
    removal_choice(study, location, training, kind, ASKING)
    notice(
        "What shall be forgotten?",
        "Choose above. The effect is predicted before anything runs; then a model is "
        "made to forget, and judged by models that were really trained without.",
    )
    others(None)
    st.stop()
with st.expander(
    f"Forget other {kind}s",
    icon=":material/ink_eraser:",
    expanded="removal_message" in st.session_state,
):
    removal_choice(study, location, training, kind, ASKING)
try:
    removed = forget_set(study, chosen.rows.tolist())
except DataloupeError as error:
    warning([str(error)])
else:
    part(location, partial(panes, chosen, removed))
others(chosen)
