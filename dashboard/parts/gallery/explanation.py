"""Galleries that explain a prediction: supporting, opposing and similar training examples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import BOTH, TRAINING, Location
from dashboard.names import short
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.gallery.cards import influence_cards, similar_cards
from dashboard.parts.gallery.gallery import Card, Group, Sign, gallery
from dashboard.parts.gallery.similar_examples import overlap_words, similar_words
from dashboard.parts.layout.blocks import aside
from dashboard.read.influences import Influences
from dashboard.read.rows_in_words import having, makeup
from dashboard.read.studies import Examples
from dashboard.slice_parameters import MOST_PICKED
from engine.attribution.evaluation.quality import Measured
from engine.store.quantities import CHANGE
from engine.store.records import Similarity
from engine.study.neighbours import read_similarity
from engine.study.reader import StudyReader

SIDE = 112
"""Side of a picture in pixels."""


def influence_groups(
    training: Examples,
    found: Influences,
    label: str,
    predicted: str,
    location: Location,
    test: str | None = None,
    words: tuple[str, str] | None = None,
    largest: float = 0,
) -> list[Group]:
    """Supporting and opposing training examples.

    Args:
        label: The label whose output is explained.
        predicted: The prediction.
        test: Id of the explained example if it is in the study: linked pages link back to it.
        words: Captions of both sides, if they are about another output than the margin of `label`.
        largest: The score that fills a bar, if it is not among these: for a common scale.
    """
    sizes = np.abs(np.concatenate([found.support_scores, found.oppose_scores]))
    largest = float(sizes.max(initial=largest))

    def cards(rows: np.ndarray, scores: np.ndarray, amounts: np.ndarray | None) -> list[Card]:
        return influence_cards(training, rows, scores, largest, location, test, amounts)

    toward, away = words or _directions(training, found, label, predicted, test)
    without = [
        without_words(len(rows), change, training.output)
        for rows, change in (
            (found.support, found.without_support),
            (found.oppose, found.without_oppose),
        )
    ]
    return [
        Group(
            "Supporting training examples",
            cards(found.support, found.support_scores, found.support_amounts),
            title="Supporting",
            words=toward + without[0],
            sign="support",
            makeup=makeup(training, found.support),
            shares=_shares(found.support_scores, found.support_total),
            whole="all supporting influence",
            empty="No training example supports this prediction.",
        ),
        Group(
            "Opposing training examples",
            cards(found.oppose, found.oppose_scores, found.oppose_amounts),
            title="Opposing",
            words=away + without[1],
            sign="oppose",
            makeup=makeup(training, found.oppose),
            shares=_shares(found.oppose_scores, found.oppose_total),
            whole="all opposing influence",
            empty="No training example opposes this prediction.",
        ),
    ]


def is_mistake(example: Mapping[Hashable, Any]) -> bool:
    """Whether a test example is predicted wrongly; False where nothing is right or wrong."""
    return not example.get("correct", True)


def opposers_first(groups: list[Group]) -> list[Group]:
    """The groups of a wrong prediction: first what pulled away from the true label."""
    order: tuple[Sign | None, ...] = ("oppose", "support", "similar", None)
    return sorted(groups, key=lambda group: order.index(group.sign))


def _directions(
    training: Examples, found: Influences, label: str, predicted: str, test: str | None
) -> tuple[str, str]:
    """Where the supporting and the opposing examples pulled the model, as sentences."""
    which = "“" if test is None else "the true label, “"
    if label == predicted:
        away = "away from it"
    else:
        away = f"toward the {'predicted' if test is None else 'wrong'} “{short(predicted)}”"
    return (
        f"Pulled the model toward {which}{short(label)}”."
        + having(training, found.support, label, "have this label"),
        f"Pulled the model {away}."
        + having(training, found.oppose, predicted, f"are labeled “{short(predicted)}”"),
    )


def influence_gallery(
    study: StudyReader,
    training: Examples,
    groups: list[Group],
    kind: str,
    location: Location,
    test: str | None = None,
    numbers: str = "",
) -> None:
    """Show these groups and, if both rankings are shown, their overlap.

    Args:
        groups: From `influence_groups`, `similar_group`, or both in this order.
        kind: `picture` or `text`.
        test: Id of the explained example if it is in the study; Training links back to it.
        numbers: What the numbers on influential examples are, one sentence.
    """
    if numbers:
        aside(numbers)
    if location.show == BOTH:
        influential = [card for group in groups[:2] for card in group.cards]
        similarity = read_similarity(study, location.algorithm)
        aside(overlap_words(influential, groups[2].cards, similarity, kind))
    back = {} if test is None else {"test": test}
    gallery(
        study,
        "train",
        groups,
        SIDE,
        "influences",
        lambda row: st.switch_page(
            TRAINING,
            query_params=location.parameters(**back, train=str(training.table["id"].iloc[row])),
        ),
        selected=location.selected_train,
        most=MOST_PICKED,
        on_select=partial(select, split="train"),
        peeks=True,
    )


def without_words(count: int, change: Measured | None, output: str) -> str:
    """Predicted effect of removing `count` examples, if known; begins with a space."""
    if change is None or not count:
        return ""
    what = "it" if count == 1 else f"these {count}"
    return f" Removing {what}: {output} {CHANGE.interval(change)}, on average."


def _shares(scores: np.ndarray, total: float) -> list[float]:
    """Share of each score in the total influence of its sign on this prediction."""
    return (scores / total).tolist() if total else []


def similar_group(
    training: Examples,
    rows: np.ndarray,
    similarities: np.ndarray,
    similarity: Similarity,
    label: str,
    location: Location,
    test: str | None = None,
) -> Group:
    """The most similar training examples; the caption counts those with `label`."""
    labeled = ""
    if "label" in training.codes:
        labeled = having(training, rows, label, f"are labeled “{short(label)}”").strip()
    return Group(
        "Similar training examples",
        similar_cards(training, rows, similarities, location, test),
        title="Similar",
        words=similar_words(similarity, len(rows), labeled),
        sign="similar",
        makeup=makeup(training, rows),
    )
