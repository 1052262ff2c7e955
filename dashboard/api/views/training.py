"""Training: one training example, and the test predictions that it helps and hurts most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dashboard.api.answer import Answer
from dashboard.api.examples import (
    Influenced,
    Influential,
    influenced,
    influential,
    predicted_fields,
)
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, is_a, number
from dashboard.api.query import Query
from dashboard.api.total_influence import Weighty, ranks_of, total_of
from dashboard.api.views.explain import Similar, similar_to
from dashboard.read.influenced import strongest_of_training
from dashboard.read.studies import examples, weights
from engine.store.quantities import CORRELATION, INFLUENCE
from engine.study.names import resolve_row
from engine.study.rankings import name_influences
from engine.study.reader import StudyReader
from engine.study.training_datamodels import has_training_datamodels, read_training_datamodel


@dataclass(frozen=True, kw_only=True)
class OwnDatamodel:
    """What the example's own prediction depends on, by a datamodel fitted to the subset runs.

    Attributes:
        itself: What training on it adds to its own model output: how much it is memorized.
        correlation: Of predicted with actual outputs, on held-out runs.
        raising, lowering: Other training examples that do so most; their score is the weight of
            the datamodel, which is in the unit of the output.
    """

    itself: Annotated[Number, is_a(INFLUENCE)]
    correlation: Annotated[Number, is_a(CORRELATION)]
    raising: list[Influential]
    lowering: list[Influential]


@dataclass(frozen=True, kw_only=True)
class TrainingExample(Head):
    """One training example, and the test predictions that it helps and hurts most.

    Attributes:
        example: The training example.
        helps, hurts: Test examples whose model output it raises or lowers most, strongest first.
        similar: The training examples most like it.
        own: What its own prediction depends on; null without datamodels of training examples.
    """

    example: Weighty
    helps: list[Influenced]
    hurts: list[Influenced]
    similar: list[Similar]
    own: OwnDatamodel | None


def answer(query: Query) -> Answer:
    """What one training example does."""
    study, location = query.study, query.location
    asked = query.needed("train", "the id of a training example, or its row as #17")
    algorithm, method, k = location.algorithm, query.method, location.k
    row = resolve_row(study, "train", asked)
    training, tests = (examples(study, split, algorithm) for split in ("train", "test"))  # type: ignore[arg-type]
    weight = weights(study, algorithm, method)
    (fields,) = predicted_fields(study, training, np.array([row]))
    helps, hurts = (
        influenced(study, tests, side.rows, side.scores, side.amounts, method)
        for side in strongest_of_training(study, row, k, algorithm, method)
    )
    return Answer(
        TrainingExample(
            **head(query),
            example=Weighty(**fields, **total_of(study, weight, row, method, ranks_of(weight))),
            helps=helps,
            hurts=hurts,
            similar=similar_to(study, "train", row, k, algorithm),
            own=_own(study, row, k, algorithm),
        )
    )


def _own(study: StudyReader, row: int, k: int, algorithm: str) -> OwnDatamodel | None:
    if not has_training_datamodels(study, algorithm):
        return None
    found = read_training_datamodel(study, row, algorithm)
    sides = name_influences(study, *(found.strongest(k, sign) for sign in (1, -1)))
    output, method = study.dataset.output, "datamodel"
    raising, lowering = (influential(study, side, output, method) for side in sides)
    parts: dict[str, Any] = {"raising": raising, "lowering": lowering}
    return OwnDatamodel(
        itself=number(INFLUENCE, found.itself, output, method),
        correlation=number(CORRELATION, found.correlation, method=method),
        **parts,
    )
