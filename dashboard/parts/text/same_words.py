"""Explain: the texts that say the same words, next to the texts that caused the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import Location
from dashboard.parts.gallery.cards import training_card
from dashboard.parts.gallery.gallery import Card, Group
from dashboard.parts.gallery.similar_examples import ordinal, with_influence_rank
from dashboard.read.rows_in_words import makeup
from dashboard.read.studies import Examples
from engine.store.quantities import BM25
from engine.study.reader import StudyReader
from engine.study.similar_texts import COMPARED, overlap, shared_spans

MOST_MARKED = 5_000
"""Characters of a text in which shared words are looked for."""


def overlap_line(support: np.ndarray, similar: np.ndarray) -> None:
    """A sentence on how many of the strongest supporters say the same words as the example.

    Args:
        support, similar: Training rows, strongest supporter and most similar in words first.
    """
    found = overlap(support[:COMPARED], similar[:COMPARED])
    if not found.supporters:
        return
    number = len(found.both)
    if not number:
        meaning = "None of them says the same words: they act by what the model learned from them."
    else:
        they = "It says" if number == 1 else "They say"
        meaning = f"{they} the same words; the others act by what the model learned from them."
    st.html(
        f'<p class="dl-aside" data-both="{number}">Of the {found.supporters:,} strongest '
        f"supporters, <b>{number:,}</b> {'is' if number == 1 else 'are'} among the {COMPARED} most "
        f"similar in words. {escape(meaning)} Words that both texts have are underlined.</p>"
    )


def same_words_group(
    training: Examples,
    rows: np.ndarray,
    scores: np.ndarray,
    influential: tuple[np.ndarray, np.ndarray],
    location: Location,
    test: str | None,
) -> Group:
    """The training texts most similar in words, each with its rank among the influential ones.

    Args:
        scores: Their BM25, best first.
        influential: Supporting and opposing training rows, strongest first.
    """
    largest = float(scores.max(initial=0)) or 1.0
    back = {} if test is None else {"test": test}
    cards = []
    shown = training.table.iloc[rows].to_dict("records")
    for row, score, example in zip(rows, scores, shown, strict=True):
        card = training_card(
            int(row), example, f"BM25 {BM25.text(score)} by shared words", location, back
        )
        cards.append(replace(card, score=BM25.text(score), bar=float(score) / largest))
    return Group(
        "Training texts with the same words",
        with_influence_rank(cards, *influential),
        title="Similar in words",
        words="By BM25: rare words that both texts have, whatever the model learned. A text that "
        "says the same words need not have caused the prediction.",
        sign="similar",
        makeup=makeup(training, rows),
        empty="No training text has a word of this text.",
    )


def with_words_rank(groups: Sequence[Group], similar: np.ndarray) -> list[Group]:
    """Mark the cards of influential texts with their rank among the texts similar in words."""
    places = {int(row): place for place, row in enumerate(similar, start=1)}

    def ranked(card: Card) -> Card:
        if card.row in places:
            tag = f"same words, {ordinal(places[card.row])}"
            return replace(card, tag=tag, mark="both")
        return replace(card, tag="other words")

    return [
        group
        if group.sign == "similar"
        else replace(group, cards=[ranked(card) for card in group.cards])
        for group in groups
    ]


def with_shared_words(study: StudyReader, groups: Sequence[Group], text: str) -> list[Group]:
    """Mark the words of each card's text that the explained text has, too."""
    query = text[:MOST_MARKED]

    def marked(card: Card) -> Card:
        return replace(card, marks=shared_spans(study, (card.text or "")[:MOST_MARKED], query))

    return [replace(group, cards=[marked(card) for card in group.cards]) for group in groups]
