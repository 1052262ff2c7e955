"""The effect of a removal on the predictions whose exact scores are kept, beside the estimate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, Location
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.read.studies import Examples, examples
from engine.applications.replay.removals import ExactChange, exact_changes
from engine.applications.replay.smoothness import smoothness_words
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.store.quantities import CHANGE, SCORE
from engine.store.text import counted
from engine.study.reader import StudyReader

SIDE, MOST = 112, 24


def exact_effect(study: StudyReader, found: Counterfactual, location: Location) -> None:
    """Show the exact changes of predictions that were replayed; nothing where none was."""
    exact = exact_changes(study, found.algorithm, found.removed)[:MOST]
    if not exact:
        return
    tests = examples(study, "test", found.algorithm)
    group = Group(
        "Exactly, by replay",
        _cards(tests, found, exact, location),
        title="Exactly, by replay",
        words=f"Change of the {tests.output} where exact scores are kept, and in how many models. "
        + smoothness_words(study, found.algorithm),
    )
    gallery(
        study,
        "test",
        [group],
        SIDE,
        "exact_effect",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(tests.ids[row]))
        ),
    )


def _cards(
    tests: Examples, found: Counterfactual, exact: list[ExactChange], location: Location
) -> list[Card]:
    largest = max(abs(one.change.mean) for one in exact) or 1.0
    cards = test_cards(tests, np.array([one.test for one in exact]), location)
    return [
        _card(card, one, found, largest, tests.output)
        for card, one in zip(cards, exact, strict=True)
    ]


def _card(card: Card, one: ExactChange, found: Counterfactual, largest: float, output: str) -> Card:
    """A card with the exact change, and the estimate under it."""
    quantity = CHANGE if found.calibrated else SCORE
    estimate = quantity.text(float(found.change[one.test]))
    estimate = f"estimate {estimate}" if found.calibrated else f"score {estimate}"
    change = CHANGE.text(one.change.mean)
    spread = CHANGE.range(one.change.low, one.change.high)
    models = counted(one.models, "model")
    verb = "falls" if one.change.mean < 0 else "rises"
    agreeing = f"{verb} in {one.agreeing} of {one.models}"
    return replace(
        card,
        note=estimate,
        hint=f"{card.hint}; the {output} changes by {change} ({spread} over {models}), "
        f"{agreeing} models; {estimate}",
        aside="",
        score=change,
        bar=abs(one.change.mean) / largest,
        tag=agreeing,
    )
