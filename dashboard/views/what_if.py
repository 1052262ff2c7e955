"""What if: remove training examples, see what predictions would become, and prove it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.components.badge import trust_badge
from dashboard.components.blocks import aside, figures, heading
from dashboard.components.building import building
from dashboard.components.cards import amount, signed, test_cards, weight_cards
from dashboard.components.copy_link import copy_link
from dashboard.components.gallery import Card, Group, gallery
from dashboard.components.intervals import Bar, intervals
from dashboard.components.notice import notice, warning
from dashboard.components.removal_choice import removal_choice
from dashboard.components.title import short, title
from dashboard.components.verifying import told, verify_button
from dashboard.data import (
    badge,
    counterfactual,
    examples,
    kept_verifications,
    open_study,
    weights,
)
from dashboard.location import EXPLAIN, TRAINING, go, read_location
from engine.counterfactual import Counterfactual
from engine.errors import DataloupeError
from engine.removal_sets import RemovalSet, keep_set, removal_set
from engine.study import Study
from engine.verification import Verification

SIDE = 112
SHOWN = 24
CLASSES_SHOWN = 24
LISTED = 20

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = "picture" if study.spec.task.name.startswith("image") else "text"

if not study.has_data or method is None:
    st.html(title("What if", "some training data were removed"))
    building(
        "What removal would do can be asked as soon as there are scores",
        lambda study: study.has_data and study.has_scores(algorithm),
        algorithm,
    )
    st.stop()

training = examples(study, "train", algorithm)
tests = examples(study, "test", algorithm)


def asked_set() -> RemovalSet | None:
    """The set in the address; None where there is none, or it cannot be."""
    key = st.query_params.get("set")
    if key is None:
        return None
    try:
        return removal_set(study, key)
    except DataloupeError as error:
        warning([str(error)])
        return None


def affected_cards(found: Counterfactual, rows: np.ndarray) -> list[Card]:
    """Test examples with the change of their margins, and whether they flip."""
    largest = float(np.abs(found.change).max(initial=0)) or 1.0
    crossing = {*found.lost.tolist(), *found.won.tolist()}
    after = found.after
    cards = []
    for card in test_cards(tests, rows, location):
        change = float(found.change[card.row])
        shown, _ = amount(change, largest, None)
        hint, note = f"{card.hint}; changes by {shown}", card.note
        if found.before is not None and after is not None:
            ends = [signed(float(end[card.row]), 100.0) for end in (found.before, after)]
            note = f"{ends[0]} → {ends[1]}"
            hint += f", margin {note}"
        flips = card.row in crossing
        cards.append(
            replace(
                card,
                note=note,
                hint=hint + (", flips" if flips else ""),
                aside="",
                score=shown,
                bar=abs(change) / largest,
                tag="flips" if flips else None,
                mark="alone" if flips else None,
            )
        )
    return cards


def affected(found: Counterfactual) -> None:
    """The predictions that change most, in both directions."""
    unit = "margin" if found.calibrated else "sum of scores"
    falls, rises = found.strongest(-1, SHOWN), found.strongest(1, SHOWN)
    gallery(
        study,
        "test",
        [
            Group(
                "Predictions that fall most",
                affected_cards(found, falls),
                title="Falls most",
                words=f"Their true label's {unit} would be lower without the removed {kind}s.",
                sign="oppose",
                empty="No prediction would fall.",
            ),
            Group(
                "Predictions that rise most",
                affected_cards(found, rises),
                title="Rises most",
                words=f"Their true label's {unit} would be higher without them.",
                sign="support",
                empty="No prediction would rise.",
            ),
        ],
        SIDE,
        "affected",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(tests.ids[row]))
        ),
    )


def headline(study: Study, found: Counterfactual) -> None:
    """The figures that matter most."""
    of = study.dataset.n_train
    removed = len(found.removed)
    shown = {"Removed": (f"{removed:,}", f"{removed / of:.1%} of {of:,} training {kind}s")}
    if found.calibrated and found.before is not None:
        shown["Lost"] = (f"{len(found.lost):,}", "margins fall below 0, as predicted")
        shown["Won"] = (f"{len(found.won):,}", "margins rise above 0, as predicted")
    label, worst = min(found.by_class.items(), key=lambda item: item[1].mean)
    unit = "of margin" if found.calibrated else "of scores, no unit"
    shown["Hit most"] = (short(label), f"{signed(worst.mean, 1.0)} {unit}, on average")
    figures(shown)


def removed_gallery(removed: RemovalSet) -> None:
    """The removed examples, heaviest first."""
    weight = weights(study, algorithm, str(method))
    order = removed.rows[np.argsort(-weight.total[removed.rows], kind="stable")]
    more = f", the {SHOWN} most influential of them" if len(order) > SHOWN else ""
    gallery(
        study,
        "train",
        [
            Group(
                "Removed training examples",
                weight_cards(training, order[:SHOWN], weight, location),
                title="Removed",
                words=f"{len(order):,} training {kind}s{more}. Numbers: sum of influence.",
            )
        ],
        SIDE,
        "removed",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
    )


def effect_by_class(found: Counterfactual) -> None:
    """Mean changes of every class, worst first."""
    heading("Predicted effect by class")
    aside(
        "Mean change of the margin of each class's test examples, with its 95% interval."
        if found.calibrated
        else "Uncalibrated: sums of scores order the classes; they are no changes of the margin, "
        "and have no interval. Subset runs give them a unit, see Quality."
    )
    worst = sorted(found.by_class.items(), key=lambda item: item[1].mean)
    if len(worst) > CLASSES_SHOWN:
        half = CLASSES_SHOWN // 2
        aside(f"The {half} classes at either end of {len(worst):,}.")
        worst = worst[:half] + worst[-half:]
    bars = [Bar(label, mean) for label, mean in worst]
    st.html(intervals(bars, "Mean change of the margin by class", changes=True))


def others(kept: list[Verification], here: RemovalSet | None) -> None:
    """Every verification, newest first; each opens its own set."""
    heading("All verifications")
    if not kept:
        aside("None yet. Each is kept here, and all together are judged on the page Quality.")
        return
    rows = None if here is None else here.rows.tolist()
    for one in kept[::-1][:LISTED]:
        flips = sum(outcome.flipped for outcome in one.outcomes)
        words = (
            f"{one.created[:16].replace('T', ' ')} · without {len(one.removed):,} · "
            f"{one.seeds} models · {flips:,} of {len(one.outcomes):,} flip"
        )
        if one.removed == rows:
            words += " · shown above"
        st.button(words, key=f"open_{one.id}", on_click=open_verified, args=(one,))
    if len(kept) > LISTED:
        aside(f"The newest {LISTED} of {len(kept):,}.")


def open_verified(one: Verification) -> None:
    """Callback: ask about the set of a verification."""
    try:
        words = f"{len(one.removed):,} that were verified {one.created[:10]}"
        go(set=keep_set(study, one.removed, words).key)
    except DataloupeError as error:
        st.session_state["removal_told"] = str(error)


# --- what is removed ---------------------------------------------------------------------------

chosen = asked_set()
with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("What if", chosen.words if chosen else "some training data were removed"))
    st.space("stretch")
    trust_badge(badge(study, algorithm, method))
    copy_link("copy")
if chosen is None:
    removal_choice(study, location, training, kind)
    others(kept_verifications(study, algorithm), None)
    notice(
        "Which training data?",
        "Choose above. The answer is a sum of scores: it takes no training, and retraining can "
        "prove it.",
    )
    st.stop()
with st.expander("Choose other training data", icon=":material/content_cut:"):
    removal_choice(study, location, training, kind)

# --- what it would do --------------------------------------------------------------------------

found = counterfactual(study, algorithm, method, chosen)
if found.emptied:
    names = ", ".join(short(label) for label in found.emptied[:5])
    warning([f"Nothing would be left of {names}. Scores cannot foretell that: do not trust this."])
headline(study, found)
left, right = st.columns(2, gap="large")
with left:
    removed_gallery(chosen)
with right:
    effect_by_class(found)
affected(found)

# --- proof -------------------------------------------------------------------------------------

heading("Verify: retrain without them")
verify_button(study, algorithm, method, chosen.rows, f"{len(chosen.rows):,} training {kind}s")
kept = kept_verifications(study, algorithm)
mine = [one for one in kept if one.removed == chosen.rows.tolist() and one.method == method]
for one in mine[::-1]:
    told(one)
others(kept, chosen)
