"""What is asked in a live query, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.store.layout import Split
from engine.store.records import View
from engine.study.group_sums import GroupSums
from engine.study.output_names import NamedOutput
from engine.tasks import Given

FOUND = 10
"""Number of the test examples that fit best in a result."""
KEPT = 500
"""Number of the strongest influences and nearest neighbors in a result."""


@dataclass(frozen=True)
class Query:
    """An example from outside the study, to predict and attribute.

    Attributes:
        root: The study's folder.
        given: The bytes of a picture's file, a text, or both. A part that is missing is taken from
            a test example, where the task can.
        output: Name of the output to attribute (`engine.study.output_names`); None: the first that
            needs no label, such as `predicted`, or what tells why the missing part is found.
        completed_by: Test row whose part completes the example; None: the one that fits best.
    """

    root: Path
    algorithm: str
    given: Given
    output: str | None = None
    completed_by: int | None = None

    def read_as(self, example: Example) -> ReadQuery:
        """The query with its example read."""
        return ReadQuery(self.root, self.algorithm, example, self.output, self.completed_by)


@dataclass(frozen=True)
class Example:
    """An example as the models take it.

    Attributes:
        thumbnail: The example, re-encoded as a PNG; None if the task has no pictures.
        text: The example itself; None if the task has no texts.
        notes: Changes made to the example before prediction, one sentence each.
        arrays: The model's inputs, one row each, without those of a missing part.
        missing: The part that was not given; None if nothing is missing.
    """

    thumbnail: bytes | None
    text: str | None
    notes: list[str]
    arrays: dict[str, np.ndarray]
    missing: View | None = None


@dataclass(frozen=True)
class ReadQuery:
    """A query whose example is read."""

    root: Path
    algorithm: str
    example: Example
    output: str | None = None
    completed_by: int | None = None


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
        by_group: Column of the training examples → its groups' shares of these sums.
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
    by_group: Mapping[str, GroupSums]


@dataclass(frozen=True)
class Completed:
    """The part that an example lacks, as models find it among the test examples.

    Attributes:
        part: Which it is.
        by: Test row that it was taken from.
        rows: The test rows whose part fits best, the best first.
        fits: How well each fits.
        candidates: Among how many of the test examples, from the first, it was looked for.
    """

    part: View
    by: int
    rows: np.ndarray
    fits: np.ndarray
    candidates: int


@dataclass(frozen=True)
class QueryResult(Attributed):
    """The result of a query about an example from outside.

    Attributes:
        default: What is attributed unless the query names an output.
        thumbnail, text, notes: As in `Example`.
        completed: Where the part came from that was not given; None if nothing was missing.
        predicted: The prediction, a class or a number, or what is retrieved.
        measures: Further numbers of the prediction by name, such as `similarity`, as in the table
            of predictions.
        confidence: In it; None where the task has none.
        probabilities: Of every class, `[n_classes]`; None where examples have no classes.
        predicting: Number of checkpoints whose mean predicts.
        similar: Training rows, most similar first. Empty if the model has no embeddings.
        similarities: Their similarities.
    """

    default: NamedOutput
    thumbnail: bytes | None
    text: str | None
    notes: list[str]
    completed: Completed | None
    predicted: str | float
    measures: Mapping[str, float]
    confidence: float | None
    probabilities: np.ndarray | None
    predicting: int
    similar: np.ndarray
    similarities: np.ndarray
