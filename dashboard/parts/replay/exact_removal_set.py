"""The removal set of one prediction by its exact scores, beside the one of the estimate."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.location import Location
from dashboard.parts.gallery.cards import influence_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.jobs.support_verification import verify_button
from dashboard.parts.layout.blocks import aside, heading
from dashboard.parts.removal.until_flip import proof
from dashboard.read.studies import examples
from dashboard.read.supports import verifications
from engine.applications.brittle.exact_support import ExactSupport, exact_proof, exact_support
from engine.applications.brittle.supports import Supports
from engine.applications.replay.smoothness import smoothness_words
from engine.store.quantities import FLIP, LOGIT_GAP
from engine.store.text import counted
from engine.study.reader import StudyReader

SIDE = 84


def exact_removal_set(study: StudyReader, found: Supports, row: int, here: Location) -> None:
    """Show which removal flips a prediction by replay, with its proof; nothing where the
    prediction has no exact scores."""
    support = exact_support(study, found, row)
    if support is None:
        return
    heading("By exact scores")
    aside(f"{_words(found, support)} {smoothness_words(study, found.algorithm)}".rstrip())
    if not support.size:
        return
    training, tests = examples(study, "train"), examples(study, "test", found.algorithm)
    with st.container(horizontal=True, vertical_alignment="center", key="exact_proof"):
        predicted = -float(support.scores[: support.size].sum())
        kept = exact_proof(support, verifications(study, found.algorithm))
        st.html(proof(tests, row, kept, predicted))
        verify_button(study, found, row, exact=True)
    scores = support.scores[: support.size]
    largest = float(np.abs(scores).max()) or 1.0
    test = str(tests.table["id"].iloc[row])
    group = Group(
        "Removal set by replay",
        influence_cards(training, support.removal, scores, largest, here, test, scores),
        title=f"The {support.size} to remove" if support.size > 1 else "The example to remove",
        words="Strongest first, by replay",
        sign="support" if found.right[row] else "oppose",
    )
    gallery(study, "train", [group], SIDE, "exact_removal", peeks=True)


def _words(found: Supports, support: ExactSupport) -> str:
    kinds = "supporters" if found.right[support.test] else "opposers"
    models = f"Replay of {counted(support.models, 'model')}"
    if not len(support.rows):
        return f"{models}: no {kinds[:-1]}."
    last = (support.size or len(support.rows)) - 1
    likely, name = FLIP.text(support.flip_probability[last]), found.gap
    gap = LOGIT_GAP.change(found.logit_gap[support.test], support.after[last])
    removed = counted(last + 1, f"strongest {kinds[:-1]}")
    if not support.size:
        return f"{models}: not predicted to flip without its {removed} ({likely}; {name} {gap})."
    same = len(set(support.removal.tolist()) & set(found.removal(support.test).tolist()))
    shared = f" {same} of them are in the estimate's set." if found.size[support.test] else ""
    return (
        f"{models}: without its {removed} it becomes "
        f"{'wrong' if found.right[support.test] else 'right'} with probability {likely}. "
        f"{name.capitalize()} {gap}.{shared}"
    )
