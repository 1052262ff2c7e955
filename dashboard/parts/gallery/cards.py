"""Cards of examples: a test example with its prediction, an influence with its score, a training
example with its total influence in the study."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from dashboard.location import Location
from dashboard.names import file_of, with_file
from dashboard.parts.gallery.gallery import Card
from dashboard.read.studies import Examples, Weights
from engine.store.quantities import (
    CONFIDENCE,
    INFLUENCE,
    SCORE,
    SIMILARITY,
    TOTAL_INFLUENCE,
    predicted_text,
    prediction_words,
)


def test_cards(found: Examples, rows: np.ndarray, location: Location) -> list[Card]:
    """Cards of test examples; each links to its explanation in the same slice."""
    shown = found.table.iloc[rows]
    return [
        _test_card(int(row), example, found, location)
        for row, example in zip(rows, shown.to_dict("records"), strict=True)
    ]


def _test_card(row: int, example: dict[Hashable, Any], found: Examples, location: Location) -> Card:
    id_, label = str(example["id"]), str(example["label"])
    href = "explain?" + urlencode(location.without_selection().parameters(test=id_))
    text = str(example["text"]) if "text" in example else None
    title = None if text is None else id_
    who, file = with_file(example), _file_name(example)
    if not found.has_predictions:
        return Card(row, label, "", _hint(who, label), href=href, title=title, text=text, file=file)
    words = prediction_words(example["predicted"], found.predicted)
    confidence = CONFIDENCE.text(example["confidence"]) if "confidence" in example else ""
    facts = [f"confidence {confidence}"] if confidence else []
    note, wrong = words, False
    if "correct" in example:
        wrong = not example["correct"]
        note = f"✕ {predicted_text(example['predicted'])}" if wrong else "✓ correct"
        facts.insert(0, "wrong" if wrong else "correct")
    about = words + (f" ({', '.join(facts)})" if facts else "")
    hint = _hint(who, label, about)
    return Card(row, label, note, hint, confidence, wrong, href, title, text, file=file)


def _hint(who: str, *about: str) -> str:
    """What screen readers say of a card; examples of some tasks have no label."""
    found = ", ".join(filter(None, about))
    return f"{who}: {found}" if found else who


def _file_name(example: dict[Hashable, Any]) -> str | None:
    file = file_of(example)
    return None if file is None else file.rpartition("/")[2]


def influence_cards(
    training: Examples,
    rows: np.ndarray,
    scores: np.ndarray,
    largest: float,
    location: Location,
    test: str | None,
    amounts: np.ndarray | None = None,
) -> list[Card]:
    """Cards of training examples, each with its influence on `test` and a bar.

    Each links to the page of the training example, which links back to `test` if it is given.

    Args:
        scores: Of the method.
        largest: The size of a score whose bar is full.
        amounts: The influence of each, in the unit of the output; None while scores are
            uncalibrated: then the scores themselves are shown.
    """
    shown = training.table.iloc[rows]
    back = {} if test is None else {"test": test}
    cards = []
    texts = influence_texts(scores, amounts, training.output)
    examples = shown.to_dict("records")
    for row, score, example, (shown_score, full) in zip(rows, scores, examples, texts, strict=True):
        words = f"{'supports' if score > 0 else 'opposes'} with {full}"
        card = training_card(int(row), example, words, location, back)
        cards.append(replace(card, score=shown_score, bar=abs(float(score)) / largest))
    return cards


def training_card(
    row: int, example: dict[Hashable, Any], words: str, location: Location, back: dict[str, str]
) -> Card:
    """Card of a training example with a link to its page; `words` describe its role, if any."""
    id_, label = str(example["id"]), str(example["label"])
    return Card(
        row,
        label,
        id_,
        _hint(f"Training example {with_file(example)}", label, words),
        href="training?" + urlencode(location.without_selection().parameters(**back, train=id_)),
        title=id_ if "text" in example else None,
        text=str(example["text"]) if "text" in example else None,
        file=_file_name(example),
    )


def plain_cards(training: Examples, rows: np.ndarray, location: Location) -> list[Card]:
    """Cards of training examples without any number."""
    shown = training.table.iloc[rows].to_dict("records")
    return [
        training_card(int(row), example, "", location, {})
        for row, example in zip(rows, shown, strict=True)
    ]


def similar_cards(
    training: Examples,
    rows: np.ndarray,
    similarities: np.ndarray,
    location: Location,
    test: str | None = None,
) -> list[Card]:
    """Cards of training examples with the similarity of each to the example shown.

    Each links to the page of the training example, which links back to `test` if it is given.
    """
    shown = training.table.iloc[rows]
    back = {} if test is None else {"test": test}
    cards = []
    for row, similarity, example in zip(rows, similarities, shown.to_dict("records"), strict=True):
        words = SIMILARITY.text(similarity)
        card = training_card(int(row), example, f"similarity {words}", location, back)
        cards.append(replace(card, score=words, bar=max(0.0, float(similarity))))
    return cards


def influenced_cards(
    found: Examples,
    rows: np.ndarray,
    scores: np.ndarray,
    largest: float,
    location: Location,
    amounts: np.ndarray | None = None,
) -> list[Card]:
    """Cards of test examples with the influence of one training example on each, linked to Explain.

    Args:
        amounts: As in `influence_cards`.
    """
    cards = []
    own = test_cards(found, rows, location)
    texts = influence_texts(scores, amounts, found.output)
    for card, score, (shown, full) in zip(own, scores, texts, strict=True):
        effect = found.effects[0 if score > 0 else 1].past
        hint = f"{card.hint}; {effect} with {full}"
        cards.append(replace(card, hint=hint, score=shown, bar=abs(float(score)) / largest))
    return cards


def weight_cards(
    training: Examples, rows: np.ndarray, weights: Weights, location: Location
) -> list[Card]:
    """Cards of training examples with their total influence."""
    largest = float(weights.total[rows].max(initial=0)) or 1.0
    cards = []
    for row, example in zip(rows, training.table.iloc[rows].to_dict("records"), strict=True):
        weight = float(weights.total[row])
        plus, minus = (
            f"{TOTAL_INFLUENCE.text(abs(sums[row]))} {effect.participle}"
            for sums, effect in zip(
                (weights.support, weights.oppose), training.effects, strict=True
            )
        )
        words = f"{plus} and {minus} in total, {weights.unit}"
        card = training_card(int(row), example, words, location, {})
        cards.append(replace(card, score=TOTAL_INFLUENCE.text(weight), bar=weight / largest))
    return cards


def influence_texts(
    scores: np.ndarray, amounts: np.ndarray | None, output: str
) -> list[tuple[str, str]]:
    """(what is on the card, what is in its tooltip) of each influence or, uncalibrated, score."""
    raw = [SCORE.text(score) for score in scores]
    if amounts is None:
        return [(score, f"score {score}") for score in raw]
    shown = [INFLUENCE.text(amount) for amount in amounts]
    return [
        (amount, f"{amount} of {output} (score {score})")
        for amount, score in zip(shown, raw, strict=True)
    ]
