"""Examples in an answer: what they are, and what is predicted for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dashboard.api.numbers import Number, is_a, number
from dashboard.read.studies import Examples
from engine.store.layout import Split
from engine.store.quantities import (
    CONFIDENCE,
    ERROR,
    INFLUENCE,
    OUTPUT,
    SCORE,
    predicted_text,
)
from engine.store.records import Influence
from engine.store.rows import ranges
from engine.study.capabilities import has
from engine.study.reader import StudyReader

SHOWN = ("id", "label", "file", "text", "predicted", "correct", "confidence", "output", "error")
"""Columns with a field of their own."""
BLOCK = 256
"""Examples that are made at a time."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An example of the data.

    Attributes:
        split: `train` or `test`.
        row: Its row, from 0.
        id: Its id, unique within the split.
        label: Its label as text; empty if it has none.
        file: The file of a picture, below the source; null if it has none.
        text: The text of a text example; null for a picture.
        picture: Address of its picture, relative to this answer's; null for a text.
    """

    split: Split
    row: int
    id: str
    label: str
    file: str | None
    text: str | None
    picture: str | None


@dataclass(frozen=True, kw_only=True)
class Predicted(Example):
    """An example with its prediction; its parts are null before it is predicted, and where the task
    does not give them.

    Attributes:
        predicted: The predicted class or number, as text.
        correct: Whether that is right.
        confidence: Probability of the predicted class.
        model_output: The model output of its label.
        error: Predicted number minus label.
        columns: All other columns of the data.
    """

    predicted: str | None
    correct: bool | None
    confidence: Annotated[Number | None, is_a(CONFIDENCE)]
    model_output: Annotated[Number | None, is_a(OUTPUT)]
    error: Annotated[Number | None, is_a(ERROR)]
    columns: dict[str, str | float | int | bool | None]


@dataclass(frozen=True, kw_only=True)
class Influential(Example):
    """A training example with its influence on a prediction. Positive supports, negative opposes.

    Attributes:
        influence: What it adds to the model output; null while scores are uncalibrated.
        score: Of the method; comparable within one prediction only.
    """

    influence: Annotated[Number | None, is_a(INFLUENCE)]
    score: Annotated[Number, is_a(SCORE)]


@dataclass(frozen=True, kw_only=True)
class Influenced(Predicted):
    """A test example with the influence of one training example on its prediction.

    Attributes:
        influence: What the training example adds to its model output; null while scores are
            uncalibrated.
        score: Of the method.
    """

    influence: Annotated[Number | None, is_a(INFLUENCE)]
    score: Annotated[Number, is_a(SCORE)]


def named(study: StudyReader, split: Split, example: dict[Any, Any], row: int) -> dict[str, Any]:
    """The fields of `Example`, from a row of a table."""
    file, text = example.get("file"), example.get("text")
    return {
        "split": split,
        "row": int(row),
        "id": str(example["id"]),
        "label": "" if example["label"] is None else str(example["label"]),
        "file": file if isinstance(file, str) and file else None,
        "text": text if isinstance(text, str) else None,
        "picture": picture_of(study, split, row),
    }


def picture_of(study: StudyReader, split: Split, row: int) -> str | None:
    """Address of an example's picture, relative to that of any view."""
    return f"picture?split={split}&row={row}" if has(study, "pictures") else None


def predicted(study: StudyReader, found: Examples, rows: np.ndarray) -> Iterator[Predicted]:
    """Examples with their predictions, made block by block."""
    for fields in predicted_fields(study, found, rows):
        yield Predicted(**fields)


def predicted_fields(
    study: StudyReader, found: Examples, rows: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The fields of `Predicted` of each example."""
    assert found.source is not None
    split, output = found.source[1], study.dataset.output
    others = [name for name in found.table.columns if name not in SHOWN]
    for block in ranges(range(len(rows)), BLOCK):
        some = rows[block.start : block.stop]
        records = found.table.iloc[some].to_dict("records")
        for row, example in zip(some.tolist(), records, strict=True):
            yield {
                **named(study, split, example, row),
                **_prediction(example, found, output),
                "columns": {str(name): _plain(example[name]) for name in others},
            }


def _prediction(example: dict[Any, Any], found: Examples, output: str) -> dict[str, Any]:
    def quantity(name: str, of: Any) -> Number | None:
        return number(of, float(example[name]), output) if name in example else None

    return {
        "predicted": predicted_text(example["predicted"], found.predicted)
        if "predicted" in example
        else None,
        "correct": bool(example["correct"]) if "correct" in example else None,
        "confidence": quantity("confidence", CONFIDENCE),
        "model_output": quantity("output", OUTPUT),
        "error": quantity("error", ERROR),
    }


def _plain(value: Any) -> str | float | int | bool | None:
    """A cell as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value != value:
        return None
    return value if isinstance(value, str | float | int | bool) else str(value)


def influential(
    study: StudyReader, found: Sequence[Influence], output: str, method: str
) -> list[Influential]:
    """Training examples with their influences on the output of this name."""
    return [
        Influential(
            split="train",
            row=one.row,
            id=one.id,
            label=one.label,
            file=one.file,
            text=one.text,
            picture=picture_of(study, "train", one.row),
            influence=None
            if one.influence is None
            else number(INFLUENCE, one.influence, output, method),
            score=number(SCORE, one.score, output, method),
        )
        for one in found
    ]


def influenced(
    study: StudyReader,
    tests: Examples,
    rows: np.ndarray,
    scores: np.ndarray,
    amounts: np.ndarray | None,
    method: str,
) -> list[Influenced]:
    """Test examples with the influence of one training example on each."""
    output = study.dataset.output
    shown = [None] * len(rows) if amounts is None else amounts.tolist()
    return [
        Influenced(
            **fields,
            influence=None if amount is None else number(INFLUENCE, amount, output, method),
            score=number(SCORE, score, output, method),
        )
        for fields, score, amount in zip(
            predicted_fields(study, tests, rows), scores.tolist(), shown, strict=True
        )
    ]
