"""Similar beside influential: what the two orders of training examples have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import INFLUENTIAL, SHOWS
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.gallery.gallery import Card, Group
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice
from engine.store.records import Similarity
from engine.study.neighbours import has_neighbours, read_similarity
from engine.study.reader import StudyReader


def show_switch(chosen: str) -> None:
    """Influential, similar, or both; what is chosen is in the URL."""
    choice("Training data shown", SHOWS, chosen, "show", INFLUENTIAL, label_visibility="collapsed")


def wait_for_similarity(study: StudyReader, algorithm: str, kind: str) -> None:
    """End the page here, with the reason, unless it is known which training data are similar."""
    if not has_neighbours(study, algorithm):
        building(
            f"Similar training {kind}s appear here as soon as they are found",
            lambda study: has_neighbours(study, algorithm),
            algorithm,
        )
        st.stop()
    similarity = read_similarity(study, algorithm)
    if not similarity.checkpoints:
        notice(
            f"This model does not say which {kind}s are similar",
            f"Likeness is measured by a model's embeddings, and {similarity.reason}. Give it one "
            "that turns a batch of inputs into features `[batch, d]`, and build the checkpoints "
            "again. What is influential is known all the same.",
        )
        st.stop()


def compared(
    groups: Sequence[Group], nearest: np.ndarray, support: np.ndarray, oppose: np.ndarray
) -> list[Group]:
    """Mark the cards of each group by their place in the other order.

    Args:
        groups: Supporting, opposing or similar ones.
        nearest: Training rows that are most similar, most similar first.
        support, oppose: Those that are most influential, most influential first.
    """
    return [
        replace(group, cards=_beside_influential(group.cards, support, oppose))
        if group.sign == "similar"
        else replace(group, cards=_beside_similar(group.cards, nearest))
        for group in groups
    ]


def with_conflicts(cards: Sequence[Card], label: str) -> list[Card]:
    """Training examples that are similar to one labelled `label`; other labels are marked."""
    return [
        card
        if card.name == label
        else replace(
            card,
            tag="other label",
            mark="alone",
            wrong=True,
            hint=f"{card.hint}; another label than “{label}”: a possible label conflict",
        )
        for card in cards
    ]


def conflict_words(cards: Sequence[Card], label: str, kind: str) -> str:
    """How many of the similar ones are labelled otherwise, and what that may mean."""
    others = sum(card.name != label for card in cards)
    if not others:
        return f"All {len(cards):,} have its label."
    have = "has another label" if others == 1 else "have another label"
    return (
        f"{others:,} of {len(cards):,} {have}, though the model sees them as alike: possible label "
        f"conflicts. Look whether this {kind} or that one is labelled wrongly."
    )


def _beside_similar(cards: Sequence[Card], nearest: np.ndarray) -> list[Card]:
    places = _places(nearest)
    return [
        replace(card, tag=f"similar, {ordinal(places[card.row])}", mark="both")
        if card.row in places
        else replace(card, tag="not similar", mark="alone")
        for card in cards
    ]


def _beside_influential(
    cards: Sequence[Card], support: np.ndarray, oppose: np.ndarray
) -> list[Card]:
    marked = []
    supports, opposes = _places(support), _places(oppose)
    for card in cards:
        if card.row in supports:
            tag = f"supports, {ordinal(supports[card.row])}"
        elif card.row in opposes:
            tag = f"opposes, {ordinal(opposes[card.row])}"
        else:
            marked.append(replace(card, tag="little influence"))
            continue
        marked.append(replace(card, tag=tag, mark="both"))
    return marked


def similar_words(similarity: Similarity, shown: int, labelled: str) -> str:
    """What the order is, over the cards of similar training examples."""
    over = "one checkpoint"
    if similarity.checkpoints > 1:
        over = f"{similarity.checkpoints} checkpoints"
    return (
        f"The {shown:,} that the model sees as most like it: mean cosine of its embeddings over "
        f"{over}. {labelled}"
    )


def overlap_words(
    influential: Sequence[Card], similar: Sequence[Card], similarity: Similarity, kind: str
) -> str:
    """How much the two orders have in common, in a sentence or two."""
    alone = sum(card.mark == "alone" for card in influential)
    both = sum(card.mark == "both" for card in similar)
    return (
        f"{alone:,} of the {len(influential):,} influential {kind}s shown are not among the "
        f"{similarity.stored:,} most similar; {both:,} of the {len(similar):,} similar ones shown "
        "are among the most influential, too."
    )


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, …"""
    teens = 10 <= number % 100 <= 20
    ending = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _places(rows: np.ndarray) -> dict[int, int]:
    return {int(row): place for place, row in enumerate(rows, start=1)}
