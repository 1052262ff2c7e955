"""Overview: how good the predictions are, and which training examples have most influence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from dashboard.api.answer import Answer
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, is_a, number
from dashboard.api.query import Query
from dashboard.api.total_influence import Weighty, weighty
from dashboard.parts.charts.confusion_matrix import confusion_counts
from dashboard.read.number_errors import errors_of
from dashboard.read.studies import Examples, examples, weights
from engine.store.quantities import ACCURACY, SHARE, SIZE
from engine.study.reader import StudyReader
from engine.study.retrieval import TOPS, has_ranks, read_recall

MOST_INFLUENTIAL = 22
"""As many as the page shows."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many predictions of a split are right."""

    accuracy: Annotated[Number, is_a(ACCURACY)]
    correct: int
    wrong: int


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far predicted numbers are from the labels.

    Attributes:
        mean_absolute_error: On the test examples.
        explained: Share of the test labels' variance that is predicted (R²); null if they do not
            vary.
        training_error: Mean absolute error on the training examples.
    """

    mean_absolute_error: Annotated[Number, is_a(SIZE)]
    explained: Annotated[Number | None, is_a(SHARE)]
    training_error: Annotated[Number, is_a(SIZE)]


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Share of the test pairs whose own caption, or picture, is among the first `at` found."""

    at: int
    caption: Annotated[Number, is_a(ACCURACY)]
    picture: Annotated[Number, is_a(ACCURACY)]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Test examples of one class, by what is predicted for them.

    Attributes:
        label: The true class.
        examples: How many there are.
        recall: Share of them that is predicted right; null if there are none.
        predicted: Predicted class → number of examples; classes that are never predicted are left
            out.
    """

    label: str
    examples: int
    recall: Annotated[Number | None, is_a(ACCURACY)]
    predicted: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Overview(Head):
    """The study at a glance.

    Attributes:
        source: Where the data came from.
        task: What the models do.
        training_examples, test_examples: How many there are.
        classes: Their names; empty without classes.
        checkpoints: Models that are averaged to predict.
        test, training: Accuracy; null for predictions that are neither right nor wrong.
        errors: For predicted numbers; else null.
        recall: For pairs of pictures and captions; else empty.
        confusion: One entry a class; empty unless each example has one class.
        most_influential: Training examples with the largest total influence.
        warnings: What may make results wrong, found while the data were read.
    """

    source: str
    task: str
    training_examples: int
    test_examples: int
    classes: list[str]
    checkpoints: int
    test: Accuracy | None
    training: Accuracy | None
    errors: Errors | None
    recall: list[Recall]
    confusion: list[Confusion]
    most_influential: list[Weighty]
    warnings: list[str]


def answer(query: Query) -> Answer:
    """The study at a glance."""
    study, algorithm, method = query.study, query.algorithm, query.location.method
    dataset = study.dataset
    tests, training = (examples(study, split, algorithm) for split in ("test", "train"))  # type: ignore[arg-type]
    found = errors_of(tests, training) if "error" in tests.numbers else None
    most = []
    if method is not None:
        weight = weights(study, algorithm, method)
        most = list(weighty(study, training, weight.order[:MOST_INFLUENTIAL], weight, method))
    return Answer(
        Overview(
            **head(query),
            source=dataset.source,
            task=dataset.task,
            training_examples=dataset.n_train,
            test_examples=dataset.n_test,
            classes=dataset.classes,
            checkpoints=study.checkpoints(algorithm),
            test=_accuracy(tests),
            training=_accuracy(training),
            errors=None
            if found is None
            else Errors(
                mean_absolute_error=number(SIZE, found.test),
                explained=None if found.explained is None else number(SHARE, found.explained),
                training_error=number(SIZE, found.training),
            ),
            recall=_recall(study, algorithm),
            confusion=_confusion(tests),
            most_influential=most,
            warnings=dataset.warnings,
        )
    )


def _accuracy(found: Examples) -> Accuracy | None:
    if not found.has_outcomes:
        return None
    right = found.outcome_mask()
    return Accuracy(
        accuracy=number(ACCURACY, right.mean()),
        correct=int(right.sum()),
        wrong=int((~right).sum()),
    )


def _recall(study: StudyReader, algorithm: str) -> list[Recall]:
    if not has_ranks(study, algorithm):
        return []
    found = read_recall(study, "test", algorithm)
    return [
        Recall(at=k, **{side: number(ACCURACY, of[k]) for side, of in found.items()}) for k in TOPS
    ]


def _confusion(tests: Examples) -> list[Confusion]:
    if not tests.has_outcomes or "label" not in tests.codes or "predicted" not in tests.codes:
        return []
    classes, counts = tests.classes, confusion_counts(tests)
    return [
        Confusion(
            label=classes[place],
            examples=int(row.sum()),
            recall=number(ACCURACY, row[place] / row.sum()) if row.sum() else None,
            predicted={classes[other]: int(row[other]) for other in np.flatnonzero(row)},
        )
        for place, row in enumerate(counts)
    ]
