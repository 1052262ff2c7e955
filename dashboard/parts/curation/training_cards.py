"""Cards of the training set: what an example is sorted by, and what was decided about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from dashboard.location import Location
from dashboard.names import short
from dashboard.parts.curation.decision_words import decided
from dashboard.parts.gallery.cards import training_card
from dashboard.parts.gallery.gallery import Card
from dashboard.read.curation import SHOWN, Curation
from dashboard.read.studies import Examples
from engine.study.decisions import Decision

BY_LABEL = ("suspicion", "disagreement")
"""Sort orders whose cards show the likeliest other class."""


def training_set_cards(
    training: Examples,
    rows: np.ndarray,
    location: Location,
    found: Curation,
    decisions: Mapping[int, Decision],
    sort: str | None,
) -> list[Card]:
    """Cards of training examples; each links to its page.

    Args:
        sort: What is shown of each, one of TRAINING_SORTS; None for nothing.
    """
    values = found.values.get(sort or "")
    others: list[str | None] = [None] * len(rows)
    if sort in BY_LABEL and found.suspicion is not None:
        others = [short(name) for name in found.suspicion.suggested(rows)]
    cards = []
    for row, example, other in zip(
        rows.tolist(), training.table.iloc[rows].to_dict("records"), others, strict=True
    ):
        facts, note, aside = [], str(example["id"]), ""
        if other is not None:
            note = f"→ {other}?"
            facts.append(f"looks like {other}")
        if values is not None and np.isfinite(values[row]):
            words, quantity = SHOWN[sort or ""]
            aside = quantity.text(values[row])
            facts.append(f"{words} {aside}")
        decision = decisions.get(row)
        if decision is not None:
            facts.append(decided(decision))
        card = training_card(row, example, ", ".join(facts), location, {})
        tag = None if decision is None else decided(decision)
        mark: Literal["both", "alone"] | None = None
        if decision is not None:
            mark = "both" if decision.verdict == "keep" else "alone"
        cards.append(replace(card, note=note, aside=aside, tag=tag, mark=mark))
    return cards
