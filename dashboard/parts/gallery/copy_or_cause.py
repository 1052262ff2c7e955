"""Copy or cause? What a made example looks like, beside what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import TRAINING, Location
from dashboard.names import short
from dashboard.parts.gallery.cards import plain_cards, similar_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.gallery.similar_examples import with_influence_rank
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.messages import warning
from dashboard.read.nearest import nearest
from dashboard.read.studies import Examples
from engine.store.quantities import DISTANCE, SHARE
from engine.study.nearest_values import COMPARED, MEMORIZED, Nearest
from engine.study.neighbours import find_neighbours, has_similar
from engine.study.reader import StudyReader

SHOWN = 8
SIDE = 112
RANKED = 100
"""So many of each sign are called influential."""


def copy_or_cause(
    study: StudyReader,
    row: int,
    training: Examples,
    strongest: Sequence[np.ndarray],
    here: Location,
    kind: str,
) -> None:
    """The nearest training examples by their pixels and by features, with their influence.

    Args:
        strongest: The training rows that support most and that oppose most, strongest first.
    """
    found, strongest = nearest(study, row), [rows[:RANKED] for rows in strongest]
    if found is None:
        return
    st.html('<h2 class="dl-heading">Copy or cause?</h2>')
    _memorized(study, found, training, kind)
    groups = [_by_pixels(training, found, strongest, here, kind)]
    if has_similar(study, here.algorithm):
        rows, likeness = find_neighbours(study, "test", row, SHOWN, here.algorithm)
        cards = similar_cards(training, rows, likeness, here, here.test)
        groups.append(_group("By features", "cosine of the models' features", cards, strongest))
    gallery(
        study,
        "train",
        groups,
        SIDE,
        "copy_or_cause",
        lambda one: st.switch_page(
            TRAINING,
            query_params=here.parameters(
                **({} if here.test is None else {"test": here.test}),
                train=str(training.table["id"].iloc[one]),
            ),
        ),
        peeks=True,
    )


def _memorized(study: StudyReader, found: Nearest, training: Examples, kind: str) -> None:
    """Whether the models repeat a training example."""
    name = short(training.table["id"].iloc[found.rows[0]])
    measured = (
        f"the nearest training {kind}, {name}, is at {SHARE.text(found.ratio)} of the mean "
        f"distance of the {COMPARED} nearest"
    )
    if found.memorized:
        warning([f"Memorized? {measured[0].upper()}{measured[1:]}: it looks like a copy of it."])
    else:
        aside(f"No copy: {measured}. Copies are at less than {SHARE.text(MEMORIZED)}.")


def _by_pixels(
    training: Examples, found: Nearest, strongest: Sequence[np.ndarray], here: Location, kind: str
) -> Group:
    rows, distances = found.rows[:SHOWN], found.distances[:SHOWN].tolist()
    cards = [
        replace(card, score=DISTANCE.text(one), hint=f"{card.hint}, distance {DISTANCE.text(one)}")
        for card, one in zip(plain_cards(training, rows, here), distances, strict=True)
    ]
    return _group("Pixel by pixel", DISTANCE.unit, cards, strongest)


def _group(title: str, words: str, cards: list[Card], strongest: Sequence[np.ndarray]) -> Group:
    marked = with_influence_rank(cards, *strongest)
    influential = sum(card.mark == "both" for card in marked)
    return Group(
        f"Nearest training examples, {title.lower()}",
        marked,
        title=f"Nearest {title.lower()}",
        words=f"Numbers: {words}. {influential} of these {len(marked)} are among the "
        f"{sum(map(len, strongest)):,} most influential.",
        sign="similar",
    )
