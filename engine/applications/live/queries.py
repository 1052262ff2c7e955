"""What is asked in a live query, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.store.layout import Split
from engine.study.output_names import NamedOutput

KEPT = 500
"""Number of the strongest influences and nearest neighbors in a result."""


@dataclass(frozen=True)
class Query:
    """An example from outside the study, to predict and attribute.

    Attributes:
        root: The study's folder.
        content: The bytes of a picture file, or a text.
        output: Name of the output to attribute (`engine.study.output_names`); None: the first that
            needs no label, such as `predicted`.
    """

    root: Path
    algorithm: str
    content: bytes | str
    output: str | None = None


@dataclass(frozen=True)
class Example:
    """An example as the models take it.

    Attributes:
        thumbnail: The example, re-encoded as a PNG; None if the task has no pictures.
        text: The example itself; None if the task has no texts.
        notes: Changes made to the example before prediction, one sentence each.
        arrays: The model's inputs, one row each.
    """

    thumbnail: bytes | None
    text: str | None
    notes: list[str]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class ReadQuery:
    """A query whose example is read."""

    root: Path
    algorithm: str
    example: Example
    output: str | None = None


@dataclass(frozen=True)
class StoredQuery:
    """An example of the study, and the output to attribute.

    Attributes:
        output: Its name; None: the default, whose scores are stored, too.
        most: Number of influences of each sign in the result.
    """

    root: Path
    algorithm: str
    split: Split
    row: int
    output: str | None = None
    most: int = KEPT


@dataclass(frozen=True)
class Attributed:
    """The scores of one output of one example. Arrays are ordered, strongest first.

    Attributes:
        output: The output, as it is for this example: `class:Coat` where `predicted` was asked for.
        value: Its value for the mean prediction of the checkpoints.
        scoring: Number of checkpoints that the scores are averaged over.
        support, oppose: Training rows.
        support_scores, oppose_scores: Their scores.
        support_total, oppose_total: Sums of all scores of that sign.
    """

    output: NamedOutput
    value: float
    scoring: int
    support: np.ndarray
    support_scores: np.ndarray
    support_total: float
    oppose: np.ndarray
    oppose_scores: np.ndarray
    oppose_total: float


@dataclass(frozen=True)
class QueryResult(Attributed):
    """The result of a query about an example from outside.

    Attributes:
        thumbnail, text, notes: As in `Example`.
        predicted: The prediction, a class or a number.
        confidence: In it; None where the task has none.
        probabilities: Of every class, `[n_classes]`; None where examples have no classes.
        predicting: Number of checkpoints whose mean predicts.
        similar: Training rows, most similar first. Empty if the model has no embeddings.
        similarities: Their similarities.
    """

    thumbnail: bytes | None
    text: str | None
    notes: list[str]
    predicted: str | float
    confidence: float | None
    probabilities: np.ndarray | None
    predicting: int
    similar: np.ndarray
    similarities: np.ndarray
