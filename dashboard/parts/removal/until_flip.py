"""One prediction as its strongest examples are removed: probability of a flip, set, proof."""

from __future__ import annotations

from html import escape
from typing import Literal

import numpy as np
import streamlit as st

from dashboard.location import Location, keep
from dashboard.names import short
from dashboard.parts.charts.flip_curve import flip_curve
from dashboard.parts.gallery.cards import influence_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.jobs.support_verification import verify_button
from dashboard.parts.layout.messages import notice
from dashboard.parts.removal.removal_buttons import removal_buttons
from dashboard.read.studies import Examples, examples
from dashboard.read.supports import verifications
from engine.applications.brittle.supports import REQUIRED_AGREEMENT, Supports, verified
from engine.applications.verification import Verification
from engine.build.retraining import has_recipe
from engine.store.quantities import CHANGE, FLIP, LOGIT_GAP, SHARE
from engine.study.rankings import influences
from engine.study.reader import StudyReader
from engine.tasks.outcomes import outcomes_named

SIDE = 84


def until_flip(
    study: StudyReader, found: Supports, row: int, asked: int | None, here: Location
) -> None:
    """Show the curve with its slider, the proof and the removal set.

    Args:
        asked: The number of removed examples in the URL; None for the support estimate.
    """
    size = int(found.size[row])
    ranked = found.removal(row, found.at_most)
    if not len(ranked):
        notice("Nothing to remove", "No training example supports this prediction.")
        return
    k = min(asked or size or len(ranked), len(ranked))
    test_examples = examples(study, "test", found.algorithm)
    st.html(f'<p class="dl-says">{verdict(found, test_examples, row, size or len(ranked))}</p>')
    if found.calibrated:
        one = np.array([row])
        likely = found.flip_probability(one)[0, : len(ranked)]
        chance = found.chance_probability(one)
        outcomes = outcomes_named(study.dataset.outcomes)
        assert outcomes is not None, "the page needs outcomes"
        curve = np.concatenate([chance, likely])
        st.html(flip_curve(curve, k, size, found.probability, outcomes.gap))
        if len(ranked) > 1:
            st.session_state["removed"] = k
            st.slider(
                "Training examples removed",
                1,
                len(ranked),
                key="removed",
                on_change=keep,
                args=("removed", size),
            )
    if size:
        with st.container(horizontal=True, vertical_alignment="center", key="proof"):
            proofs = verified(found, verifications(study, found.algorithm))
            st.html(proof(test_examples, row, proofs.get(row)))
            if has_recipe(study, found.algorithm):
                verify_button(study, found, row)
    scores = found.score[row, :k]
    amounts = None if found.units is None else influences(found.units, scores, row)
    largest = float(np.abs(found.score[row]).max()) or 1.0
    test = str(test_examples.table["id"].iloc[row])
    sign: Literal["support", "oppose"] = "support" if found.right[row] else "oppose"
    group = Group(
        "Removal set",
        influence_cards(examples(study, "train"), ranked[:k], scores, largest, here, test, amounts),
        title=f"The {k} removed" if k > 1 else "The removed example",
        words="Strongest first",
        sign=sign,
    )
    gallery(study, "train", [group], SIDE, "removal", peeks=True)
    removal_buttons(
        study,
        ranked[:k],
        f"{k:,} that the prediction of {test} depends on",
        here,
        "What if these were removed?",
    )


def verdict(found: Supports, test_examples: Examples, row: int, k: int) -> str:
    """One sentence: the predicted effect of removing the `k` strongest."""
    example = test_examples.table.iloc[row]
    predicted, label = escape(short(example["predicted"])), escape(short(example["label"]))
    kinds = "supporters" if found.right[row] else "opposers"
    wrong = f", but it is {label}" if label else ", which is wrong"
    is_now = f"“{predicted}”" + (", which is correct" if found.right[row] else wrong)
    if not found.calibrated:
        return (
            f"Predicted {is_now}. The scores are not calibrated, so its {kinds} are ranked, but "
            "the effect of removing them is not predicted."
        )
    if found.agreement[row] < REQUIRED_AGREEMENT:
        return (
            f"Predicted {is_now}. No flip is predicted: only {SHARE.text(found.agreement[row])} of "
            "the models trained on all data agree, so it depends on chance, not on examples."
        )
    one = np.array([row])
    likely = FLIP.text(found.flip_probability(one)[0, k - 1])
    after, half_width = found.after(one)[0, k - 1], found.half_width(one)[0, k - 1]
    gap = (
        f"{found.gap.capitalize()} {LOGIT_GAP.change(found.logit_gap[row], after)} "
        f"({LOGIT_GAP.range(after - half_width, after + half_width)})."
    )
    if not found.size[row]:
        return (
            f"Predicted {is_now}. Not predicted to flip when its {k} strongest {kinds} are "
            f"removed: the probability is {likely}. {gap}"
        )
    removed = f"{k} strongest {kinds}" if k > 1 else f"strongest {kinds[:-1]}"
    becomes = "wrong" if found.right[row] else "right"
    return (
        f"Predicted {is_now}. Without its <b>{removed}</b> it becomes {becomes} with probability "
        f"<b>{likely}</b>. {gap}"
    )


def proof(
    test_examples: Examples, row: int, one: Verification | None, predicted: float | None = None
) -> str:
    """The result of retraining, or a note that the prediction is not verified.

    Args:
        predicted: Change of the output that replay predicted; None: what the scores predicted.
    """
    outcome = None if one is None else one.of(row)
    if one is None or outcome is None or outcome.flips is None or outcome.flips_with is None:
        return (
            '<p class="dl-aside">Predicted, not verified: no model has been retrained for it.</p>'
        )
    good = outcome.flipped
    models = len(outcome.without)
    flips = round(outcome.flips.mean * models)
    summary = f"{flips} of {models} retrained models flip "
    summary += f"({SHARE.range(outcome.flips.low, outcome.flips.high)}); "
    summary += f"with all data {SHARE.text(outcome.flips_with.mean)} do"
    change = f"{test_examples.output} changed by {CHANGE.text(outcome.change)}"
    if outcome.low is not None and outcome.high is not None:
        change += f" ({CHANGE.range(outcome.low, outcome.high)})"
    if predicted is None and outcome.predicted is not None:
        predicted = outcome.predicted.mean
    if predicted is not None:
        change += f", predicted {CHANGE.text(predicted)}"
    return (
        f'<p class="dl-result" data-kind="{"good" if good else "wrong"}" role="status">'
        f"{'Verified' if good else 'Refuted'}: {escape(summary)}.</p>"
        f'<p class="dl-aside">{escape(change[0].upper() + change[1:])}.</p>'
    )
