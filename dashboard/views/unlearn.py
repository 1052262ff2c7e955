"""Unlearn: make a model forget training examples, and audit it against real retrains."""

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
    effect_by_group,
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
from dashboard.read.effects import counterfactual
from dashboard.read.studies import badge, examples, open_study, what_it_shows
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.checks import check_scores
from engine.applications.unlearning.method_verdict import GRADES, best, method_verdict
from engine.applications.unlearning.rows import forget_set
from engine.build.retraining import Removal, check_recipe
from engine.store.errors import DataloupeError
from engine.store.quantities import KLOM
from engine.study.capabilities import has, missing
from engine.study.methods import has_scores
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet

EFFECT_ONLY = "Choose a forget set above to predict the effect of removing it."
ASKING = ButtonText("Forget these {}", "Forget …", ":material/ink_eraser:")

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)

if not study.has_data or method is None:
    st.html(title("Unlearn", "make a model forget training data"))
    building(
        "The effect of forgetting can be predicted as soon as there are scores",
        lambda study: study.has_data and has_scores(study, algorithm),
        algorithm,
    )
    st.stop()

training = examples(study, "train", algorithm)


def others(here: RemovalSet | None) -> None:
    """Every audit, newest first; each opens its forget set."""
    kept = audits(study, algorithm)
    if not kept:
        return
    heading("All audits")
    earlier_requests(study, kept, as_request, here)


def as_request(one: Audit) -> EarlierRequest:
    """An audit as an earlier request that can be opened again."""
    by = best(one)
    klom = one.of(by).forget.at_half.mean.mean
    text = (
        f"{one.created[:16].replace('T', ' ')} · {len(one.forget):,} forgotten · "
        f"{one.models} models · {GRADES[method_verdict(one, by).grade]} · {title_of(by)}, KLoM "
        f"{KLOM.text(klom)}"
    )
    chosen = f"{len(one.forget):,} training {kind}s"
    return EarlierRequest(one.id, one.forget, text, chosen)


# --- the panes ---------------------------------------------------------------------------------


def effect(chosen: RemovalSet, removed: Removal, here: Location) -> None:
    """The predicted effect of forgetting, before anything runs."""
    found = counterfactual(study, here.algorithm, str(here.method), chosen)
    headline(study, found, kind, "Forgotten")
    left, right = st.columns(2, gap="large")
    with left:
        removed_gallery(study, chosen, here, kind, "To be forgotten")
    with right:
        effect_by_group(study, found, chosen)
    if has(study, "unlearning") and _predictable(here.algorithm):
        predicted_margins(study, removed, here, kind)
    affected(study, found, here, kind)


def _predictable(algorithm: str) -> bool:
    """Whether outputs without the forget set can be predicted; if not, show why."""
    try:
        check_scores(study, algorithm)
    except DataloupeError as error:
        aside(f"The outputs of models without the forgotten {kind}s cannot be predicted: {error}")
        return False
    return True


def unlearn_and_audit(removed: Removal, kept: list[Audit], now: Query, here: Location) -> None:
    """The selected audit, and the form for a new one."""
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
    heading("Unlearn by other methods, with a different budget or more models")
    audit_form(study, here.algorithm, removed, kind)


def no_audit() -> None:
    """A notice in place of an audit."""
    notice(
        "No audit yet",
        f"Run one under “{PANES[AUDIT]}”: models unlearn, and are compared with models retrained "
        f"without these {kind}s.",
    )


def panes(chosen: RemovalSet, removed: Removal, study: StudyReader, here: Location) -> None:
    """The pane that the URL names; only the predicted effect where models cannot unlearn."""
    if reason := missing(study, "unlearning"):
        notice("The effect can be predicted, but no model can unlearn", reason)
        effect(chosen, removed, here)
        return
    kept = audits_of(study, here.algorithm, removed)
    now = read_query(kept)
    if now.problems:
        warning(["This link has invalid parameters.", *now.problems])
    default = AUDIT if kept else EFFECT
    with st.container(horizontal=True, key="panes"):
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
    """The unlearned model, to download."""
    if here.algorithm in study.uploads:
        notice(
            "Uploads cannot be unlearned",
            "The effect of forgetting can be predicted. Only the study's own checkpoints can be "
            "unlearned: choose an algorithm of study.toml above.",
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
        with st.popover(
            "Other set", icon=":material/ink_eraser:", width="content", key=f"other_{chosen.key}"
        ):
            removal_choice(study, location, training, kind, ASKING)
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
    if reason := missing(study, "unlearning"):
        notice("Models of this task cannot unlearn", f"{reason} {EFFECT_ONLY}")
        st.stop()
    notice(
        "What should be forgotten?",
        "Choose a forget set above. The effect is predicted before anything runs; then a model "
        "unlearns, and is audited against models retrained without the forget set.",
    )
    others(None)
    st.stop()
try:
    removed = forget_set(study, chosen.rows.tolist())
except DataloupeError as error:
    warning([str(error)])
else:
    part(location, partial(panes, chosen, removed))
others(chosen)
