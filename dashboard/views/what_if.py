"""What if: remove training examples, predict the effect, and verify it by retraining."""

from __future__ import annotations

import streamlit as st

from dashboard.location import UNLEARN, read_location
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.gallery.made_without import made_without
from dashboard.parts.layout.blocks import aside, heading
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice
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
from dashboard.parts.removal.verify_by_retraining import verification_result, verify_button
from dashboard.parts.replay.exact_effect import exact_effect
from dashboard.read.effects import counterfactual
from dashboard.read.studies import (
    badge,
    examples,
    kept_verifications,
    open_study,
    what_it_shows,
)
from engine.applications.verification import Verification
from engine.study.capabilities import has
from engine.study.methods import has_scores
from engine.study.removal_sets import RemovalSet

ASKING = ButtonText("What if these {} were removed?", "What if …", ":material/content_cut:")

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)

if not study.has_data or method is None:
    st.html(title("What if", "some training data were removed"))
    building(
        "The effect of a removal can be predicted as soon as there are scores",
        lambda study: study.has_data and has_scores(study, algorithm),
        algorithm,
    )
    st.stop()

training = examples(study, "train", algorithm)


def others(kept: list[Verification], here: RemovalSet | None) -> None:
    """Every verification, newest first; each opens its removal set."""
    heading("All verifications")
    if not kept:
        aside("None yet. They are kept here, and evaluated together on the Quality page.")
        return
    earlier_requests(study, kept, as_request, here)


def as_request(one: Verification) -> EarlierRequest:
    """A verification as an earlier request that can be opened again."""
    text = (
        f"{one.created[:16].replace('T', ' ')} · without {len(one.removed):,} · {one.seeds} models"
    )
    if has(study, "outcomes"):
        flips = sum(outcome.flipped for outcome in one.outcomes)
        text += f" · {flips:,} of {len(one.outcomes):,} flip"
    chosen = f"{len(one.removed):,} training {kind}s"
    if len(one.outcomes) == 1:
        chosen = f"Removal set of {one.outcomes[0].id}"
    return EarlierRequest(one.id, one.removed, text, chosen)


# --- removal set -------------------------------------------------------------------------------

chosen = requested_set(study)
with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("What if", chosen.words if chosen else "some training data were removed"))
    st.space("stretch")
    if chosen is not None:
        with st.popover(
            "Other set", icon=":material/content_cut:", width="content", key=f"other_{chosen.key}"
        ):
            removal_choice(study, location, training, kind, ASKING)
        st.page_link(
            UNLEARN,
            label="Forget these",
            icon=":material/ink_eraser:",
            query_params=location.parameters(set=chosen.key),
        )
    quality_badge(badge(study, algorithm, method))
    copy_link("copy")
if chosen is None:
    removal_choice(study, location, training, kind, ASKING)
    others(kept_verifications(study, algorithm), None)
    notice(
        "Which training data?",
        "Choose a removal set above. Its effect is predicted from the scores without training, and "
        "can be verified by retraining.",
    )
    st.stop()

# --- predicted effect --------------------------------------------------------------------------

found = counterfactual(study, algorithm, method, chosen)
headline(study, found, kind)
left, right = st.columns(2, gap="large")
with left:
    removed_gallery(study, chosen, location, kind)
with right:
    effect_by_group(study, found, chosen)
exact_effect(study, found, location)
affected(study, found, location, kind)

# --- verification ------------------------------------------------------------------------------

heading("Verify: retrain without them")
verify_button(study, algorithm, method, chosen.rows, f"{len(chosen.rows):,} training {kind}s")
kept = kept_verifications(study, algorithm)
mine = [one for one in kept if one.removed == chosen.rows.tolist() and one.method == method]
for one in mine[::-1]:
    verification_result(study, one)
    made_without(study, one)
others(kept, chosen)
