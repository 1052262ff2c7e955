"""Compare the most similar with the most influential training examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import INFLUENTIAL, SHOWS, WORDS
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.gallery.gallery import Card, Group
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice
from engine.store.records import Similarity
from engine.study.neighbours import has_neighbours, read_similarity
from engine.study.reader import StudyReader


def show_switch(chosen: str, texts: bool = False) -> None:
    """Show the choice between influential, similar, and both; the URL holds it.

    Args:
        texts: Whether the examples have texts, which can be similar in words, too.
    """
    shows = {name: title for name, title in SHOWS.items() if name != WORDS or texts}
    choice("Training data shown", shows, chosen, "show", INFLUENTIAL, label_visibility="collapsed")


def wait_for_similarity(study: StudyReader, algorithm: str, kind: str) -> None:
    """Stop the page with the reason unless similar training examples are available."""
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
            f"No similar {kind}s without embeddings",
            f"Similarity is the cosine of a model's embeddings, and {similarity.reason}. Give the "
            "model an embedding that maps a batch of inputs to features `[batch, d]`, and build "
            "the checkpoints again. Influence is available without it.",
        )
        st.stop()


def compared(
    groups: Sequence[Group], nearest: np.ndarray, support: np.ndarray, oppose: np.ndarray
) -> list[Group]:
    """Mark the cards of each group with their rank in the other ranking.

    Args:
        groups: Supporting, opposing or similar ones.
        nearest: The most similar training rows, most similar first.
        support, oppose: The most influential training rows, most influential first.
    """
    return [
        replace(group, cards=with_influence_rank(group.cards, support, oppose))
        if group.sign == "similar"
        else replace(group, cards=_with_similarity_rank(group.cards, nearest))
        for group in groups
    ]


def with_conflicts(cards: Sequence[Card], label: str) -> list[Card]:
    """Cards similar to an example labeled `label`, with different labels marked."""
    return [
        card
        if card.name == label
        else replace(
            card,
            tag="different label",
            mark="alone",
            wrong=True,
            hint=f"{card.hint}; label differs from “{label}”: a possible label conflict",
        )
        for card in cards
    ]


def conflict_words(cards: Sequence[Card], label: str, kind: str) -> str:
    """The number of similar examples with a different label, and what it may mean."""
    others = sum(card.name != label for card in cards)
    if not others:
        return f"All {len(cards):,} have the same label."
    have = "has a different label" if others == 1 else "have a different label"
    return (
        f"{others:,} of {len(cards):,} {have}, although their embeddings are similar: possible "
        f"label conflicts. Check whether this {kind} or the other is mislabeled."
    )


def _with_similarity_rank(cards: Sequence[Card], nearest: np.ndarray) -> list[Card]:
    places = _places(nearest)
    return [
        replace(card, tag=f"similar, {ordinal(places[card.row])}", mark="both")
        if card.row in places
        else replace(card, tag="not similar", mark="alone")
        for card in cards
    ]


def with_influence_rank(
    cards: Sequence[Card], support: np.ndarray, oppose: np.ndarray
) -> list[Card]:
    """Mark cards with their rank among the supporting or the opposing training rows."""
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


def similar_words(similarity: Similarity, shown: int, labeled: str) -> str:
    """Caption of the similar training examples: how they are ranked."""
    over = "one checkpoint"
    if similarity.checkpoints > 1:
        over = f"{similarity.checkpoints} checkpoints"
    return (
        f"The {shown:,} most similar by mean cosine of the model's embeddings over {over}. "
        f"{labeled}"
    ).rstrip()


def overlap_words(
    influential: Sequence[Card], similar: Sequence[Card], similarity: Similarity, kind: str
) -> str:
    """The overlap of the two rankings as text."""
    alone = sum(card.mark == "alone" for card in influential)
    both = sum(card.mark == "both" for card in similar)
    return (
        f"{alone:,} of the {len(influential):,} influential {kind}s shown are not among the "
        f"{similarity.stored:,} most similar; {both:,} of the {len(similar):,} similar ones shown "
        "are also among the most influential."
    )


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, …"""
    teens = 10 <= number % 100 <= 20
    ending = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _places(rows: np.ndarray) -> dict[int, int]:
    return {int(row): place for place, row in enumerate(rows, start=1)}
