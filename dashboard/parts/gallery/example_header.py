"""The example that a page is about: shown large, with its label, prediction and confidence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.names import file_of
from dashboard.parts.gallery.gallery import thumbnail_side
from dashboard.parts.text.shown_text import Span, in_order, text_html
from dashboard.read.columns import output_name
from dashboard.read.picture_urls import sprite_url
from engine.data import SPRITES_PER_SHEET, thumbnail_box
from engine.data.thumbnails import COLUMNS
from engine.store.layout import Split
from engine.store.quantities import (
    CONFIDENCE,
    ERROR,
    MEASURES,
    OUTPUT,
    PREDICTED,
    PREDICTIONS,
    PROBABILITY,
    predicted_text,
)
from engine.study.capabilities import has
from engine.study.groups import group_columns
from engine.study.models import read_probabilities
from engine.study.reader import StudyReader
from engine.tasks.outcomes import outcomes_named

SIDE = 252
LARGE_ODDS = 1000.0
EVEN_ODDS = 1.1
LIKELIEST = 4


def subject(
    study: StudyReader,
    algorithm: str,
    split: Split,
    row: int,
    example: dict[Hashable, Any],
    marks: Sequence[Span] = (),
) -> None:
    """Show one example. Without predictions, show only its data.

    Args:
        marks: Parts of its text to mark.
    """
    shown = _example(study, split, row, example, marks)
    known = _known(study, algorithm, split, row, example)
    st.html(f'<div class="dl-subject">{shown}{known}</div>')


def only_example(study: StudyReader, split: Split, row: int, example: dict[Hashable, Any]) -> None:
    """Show one example without what is known of it."""
    st.html(f'<div class="dl-subject">{_example(study, split, row, example)}</div>')


def only_facts(
    study: StudyReader, algorithm: str, split: Split, row: int, example: dict[Hashable, Any]
) -> None:
    """Show what is known of an example, without the example."""
    st.html(f'<div class="dl-subject">{_known(study, algorithm, split, row, example)}</div>')


def _example(
    study: StudyReader,
    split: Split,
    row: int,
    example: dict[Hashable, Any],
    marks: Sequence[Span] = (),
) -> str:
    shown = ""
    if has(study, "pictures"):
        shown += picture_html(study, split, row, example)
    if has(study, "texts"):
        shown += text_html(str(example.get("text", "")), marks)
    return shown


def _known(
    study: StudyReader, algorithm: str, split: Split, row: int, example: dict[Hashable, Any]
) -> str:
    shown = _facts(study, split, row, example)
    if "predicted" in example and has(study, "classes"):
        found = read_probabilities(study, split, row, algorithm)
        shown += probabilities(study.dataset.classes, found, str(example["label"]))
    return shown


def probabilities(classes: list[str], found: np.ndarray, label: str) -> str:
    """HTML bars of the most likely classes, and of the label whatever its rank."""
    order = np.argsort(-found, kind="stable")
    shown = [int(place) for place in order[:LIKELIEST]]
    if label in classes and classes.index(label) not in shown:
        shown[-1] = classes.index(label)
    entries = "".join(
        f'<li data-label="{str(classes[place] == label).lower()}">'
        f"<span>{_clamped(classes[place])}</span><span>{escape(PROBABILITY.text(found[place]))}</span>"
        f'<div class="dl-track"><i style="width:{100 * found[place]:.1f}%"></i></div></li>'
        for place in shown
    )
    return f'<ol class="dl-probabilities" aria-label="Class probabilities">{entries}</ol>'


def odds(margin: float, label: str = "the true label") -> str:
    """The margin log p/(1 − p) of a label as text."""
    ratio = math.exp(min(abs(margin), 50.0))
    if ratio < EVEN_ODDS:
        return f"even odds for {label}"
    amount = f"over {LARGE_ODDS:,.0f}" if ratio >= LARGE_ODDS else f"about {_rounded(ratio)}"
    side = "for" if margin > 0 else "against"
    return f"odds of {amount} to 1 {side} {label}"


def _rounded(ratio: float) -> str:
    return f"{ratio:.1f}".removesuffix(".0") if ratio < 10 else f"{ratio:.0f}"


def picture_html(
    study: StudyReader, split: Split, row: int, example: Mapping[Hashable, Any], most: int = SIDE
) -> str:
    """HTML of an example's picture, cut from its sprite sheet.

    Args:
        most: Pixels of its side.
    """
    side = thumbnail_side(study.dataset.cell, most)
    sheet, position = divmod(row, SPRITES_PER_SHEET)
    left, top, _, _ = thumbnail_box(position, 1)
    columns, rows = COLUMNS, thumbnail_box(_last_position(study, split, sheet), 1)[3]
    # In percent of the sheet outside the picture, so that the picture can shrink with the page.
    across, down = (100 * at / max(1, of - 1) for at, of in ((left, columns), (top, rows)))
    style = (
        f"width:{side}px;background-image:url('{sprite_url(study, split, sheet)}');"
        f"background-size:{100 * columns}% auto;background-position:{across:.4f}% {down:.4f}%"
    )
    kind = "Test" if split == "test" else "Training"
    labeled = f", labeled {example['label']}" if example["label"] else ""
    name = escape(f"{kind} picture {example['id']}{labeled}", quote=True)
    return f'<div class="dl-picture" role="img" aria-label="{name}" style="{style}"></div>'


def _last_position(study: StudyReader, split: Split, sheet: int) -> int:
    """The last filled cell of a sheet; the sheet ends with its row."""
    return min(SPRITES_PER_SHEET, study.dataset.rows(split) - sheet * SPRITES_PER_SHEET) - 1


def _facts(study: StudyReader, split: Split, row: int, example: dict[Hashable, Any]) -> str:
    facts = []
    if example["label"]:
        facts.append(("True label" if split == "test" else "Label", _clamped(example["label"])))
    verdict = ""
    if "correct" in example:
        correct = bool(example["correct"])
        word = "✓ Predicted correctly" if correct else "✕ Predicted wrongly"
        verdict = f'<div class="dl-verdict" data-correct="{str(correct).lower()}">{word}</div>'
    outcomes = outcomes_named(study.dataset.outcomes)
    if outcomes is not None and outcomes.expected:
        facts.append(("Expected", _clamped(example[outcomes.expected])))
    if "predicted" in example:
        facts.append(prediction_fact(study, example["predicted"]))
        if "error" in example:
            error = ERROR.text(example["error"])
            facts.append(("Error", f"{error}<small>predicted minus true label</small>"))
        if "confidence" in example:
            confidence = escape(CONFIDENCE.text(example["confidence"]))
            facts.append(("Confidence", f"{confidence}<small>in its prediction</small>"))
        facts += measures({str(name): value for name, value in example.items()})
        facts += _output(study, example)
    if not example["label"]:  # what it has instead
        facts += [
            (escape(name.replace("_", " ").capitalize()), _clamped(_whole(example[name])))
            for name in group_columns(study)
            if pd.notna(example.get(name)) and not name.startswith("original_")
        ]
    facts.append(("Example", f"{_clamped(example['id'])}<small>row {row:,}</small>"))
    if (file := file_of(example)) is not None:
        facts.append(("File", _clamped(file)))
    entries = "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in facts)
    return f'{verdict}<dl class="dl-facts">{entries}</dl>'


def prediction_fact(study: StudyReader, predicted: Any) -> tuple[str, str]:
    """Name and HTML of what is predicted."""
    kind = study.dataset.predicted
    quantity, words = PREDICTIONS[kind], _clamped(predicted_text(predicted, kind))
    unit = "" if quantity == PREDICTED else f"<small>{quantity.unit}</small>"
    return quantity.name.capitalize(), words + unit


def measures(columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and HTML of the numbers of a prediction that only some tasks give."""
    return [
        (
            quantity.name.capitalize(),
            f"{quantity.text(columns[name])}<small>{quantity.unit}</small>",
        )
        for name, quantity in MEASURES.items()
        if name in columns
    ]


def _whole(value: object) -> object:
    """A whole number as such, even if others of its column are missing."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _output(study: StudyReader, example: dict[Hashable, Any]) -> list[tuple[str, str]]:
    """The model output, unless it is the prediction itself, or minus that."""
    output = float(example["output"])
    predicted = PREDICTED.text(output), PREDICTED.text(-output)
    if predicted_text(example["predicted"]) in predicted:
        return []
    words = odds(output) if has(study, "classes") else escape(study.dataset.output_title)
    name = escape(output_name(study.dataset).capitalize())
    return [(name, f"{OUTPUT.text(output)}<small>{words}</small>")]


def _clamped(text: object) -> str:
    words = escape(in_order(text), quote=True)
    return f'<bdi class="dl-clamp" title="{words}">{words}</bdi>'
