"""Cards of examples: a test example with its prediction, an influence with its score, a training
example with its total influence in the study."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from dashboard.location import Location
from dashboard.names import file_of, with_file
from dashboard.parts.gallery.gallery import Card
from dashboard.read.columns import text_of
from dashboard.read.studies import Examples, Weights


def test_cards(found: Examples, rows: np.ndarray, location: Location) -> list[Card]:
    """Cards of test examples; each links to its explanation in the same slice."""
    shown = found.table.iloc[rows]
    return [
        _test_card(int(row), example, found.has_predictions, location)
        for row, example in zip(rows, shown.to_dict("records"), strict=True)
    ]


def _test_card(
    row: int, example: dict[Hashable, Any], predictions: bool, location: Location
) -> Card:
    id_, label = str(example["id"]), str(example["label"])
    href = "explain?" + urlencode(location.parameters(test=id_))
    text = str(example["text"]) if "text" in example else None
    title = None if text is None else id_
    who, file = with_file(example), _file_name(example)
    if not predictions:
        return Card(row, label, "", f"{who}: {label}", href=href, title=title, text=text, file=file)
    predicted = text_of(example["predicted"])
    confidence = f"{float(example['confidence']):.0%}" if "confidence" in example else ""
    facts = [f"confidence {confidence}"] if confidence else []
    note, wrong = f"predicted {predicted}", False
    if "correct" in example:
        wrong = not example["correct"]
        note = f"✕ {predicted}" if wrong else "✓ correct"
        facts.insert(0, "wrong" if wrong else "correct")
    hint = f"{who}: {label}, predicted {predicted}" + (f" ({', '.join(facts)})" if facts else "")
    return Card(row, label, note, hint, confidence, wrong, href, title, text, file=file)


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
    changes: np.ndarray | None = None,
) -> list[Card]:
    """Cards of training examples, each with its score for `test` and a bar relative to `largest`.

    Each links to the page of the training example, which links back to `test` if it is given.

    Args:
        changes: What each adds to the model output; None while scores are uncalibrated.
    """
    shown = training.table.iloc[rows]
    back = {} if test is None else {"test": test}
    cards = []
    amounts_shown = amounts(scores, largest, changes, training.output)
    examples = shown.to_dict("records")
    for row, score, example, (shown_score, full) in zip(
        rows, scores, examples, amounts_shown, strict=True
    ):
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
        f"Training example {with_file(example)}: {label}" + (f", {words}" if words else ""),
        href="training?" + urlencode(location.parameters(**back, train=id_)),
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
        words = f"{similarity:z.3f}".replace("-", "−")
        card = training_card(int(row), example, f"similarity {words}", location, back)
        cards.append(replace(card, score=words, bar=max(0.0, float(similarity))))
    return cards


def influenced_cards(
    found: Examples,
    rows: np.ndarray,
    scores: np.ndarray,
    largest: float,
    location: Location,
    changes: np.ndarray | None = None,
) -> list[Card]:
    """Cards of test examples with the effect of one training example on each, linked to Explain.

    Args:
        changes: What it adds to the output of each; None while scores are uncalibrated.
    """
    cards = []
    own = test_cards(found, rows, location)
    for card, score, (shown, full) in zip(
        own, scores, amounts(scores, largest, changes, found.output), strict=True
    ):
        effect = found.effects[0 if score > 0 else 1].past
        hint = f"{card.hint}; {effect} with {full}"
        cards.append(replace(card, hint=hint, score=shown, bar=abs(float(score)) / largest))
    return cards


def weight_cards(
    training: Examples, rows: np.ndarray, weights: Weights, location: Location
) -> list[Card]:
    """Cards of training examples with the sum of their absolute influence."""
    largest = float(weights.total[rows].max(initial=0)) or 1.0
    cards = []
    for row, example in zip(rows, training.table.iloc[rows].to_dict("records"), strict=True):
        weight = float(weights.total[row])
        plus, minus = (
            f"{signed(sums[row], largest)} {effect.participle}"
            for sums, effect in zip(
                (weights.support, weights.oppose), training.effects, strict=True
            )
        )
        words = f"{plus} and {minus} in total"
        card = training_card(int(row), example, words, location, {})
        score = signed(weight, largest).removeprefix("+")
        cards.append(replace(card, score=score, bar=weight / largest))
    return cards


def amounts(
    scores: np.ndarray, largest: float, changes: np.ndarray | None, output: str
) -> list[tuple[str, str]]:
    """(score on the card, score in its tooltip) of each, in units of the output if calibrated."""
    raw = [signed(score, largest) for score in scores]
    if changes is None:
        return [(score, score) for score in raw]
    finest = float(np.abs(changes).max(initial=0))
    shown = [signed(change, finest) for change in changes]
    return [
        (change, f"{change} of {output} (score {score})")
        for change, score in zip(shown, raw, strict=True)
    ]


def signed(score: float, largest: float) -> str:
    """A signed score with the decimals that show `largest` in three digits."""
    if not 1e-5 <= largest < 1e5:
        return f"{score:+.2e}".replace("-", "−")
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    return f"{score:+z.{decimals}f}".replace("-", "−")
