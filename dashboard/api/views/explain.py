"""Explain: one prediction, and the training examples that support and oppose it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dashboard.api.answer import Answer
from dashboard.api.examples import (
    Example,
    Influential,
    Predicted,
    influential,
    named,
    predicted,
)
from dashboard.api.head import Head, head, trust
from dashboard.api.numbers import Number, Range, is_a, measured, number
from dashboard.api.query import Query
from dashboard.api.views.origins import GroupShare, Made, groups_of, made_of
from dashboard.location import BOTH, SIMILAR, WORDS
from dashboard.read.influences import stored_influences
from dashboard.read.output_scores import stored_explanation
from dashboard.read.studies import examples, lds_of_each
from engine.attribution.evaluation.quality import Measured
from engine.store.errors import StoreError
from engine.store.layout import Split
from engine.store.quantities import BM25, CHANGE, LDS, PROBABILITY, SIMILARITY
from engine.store.records import Explanation
from engine.study.capabilities import has
from engine.study.example_outputs import outputs_of
from engine.study.models import has_predictions, read_probabilities
from engine.study.names import resolve_row
from engine.study.neighbours import find_neighbours, has_neighbours, read_similarity
from engine.study.reader import StudyReader
from engine.study.similar_texts import rows_similar_in_words


@dataclass(frozen=True, kw_only=True)
class Likely:
    """A class and its probability."""

    label: str
    probability: Annotated[Number, is_a(PROBABILITY)]


@dataclass(frozen=True, kw_only=True)
class Similar(Example):
    """A training example that is like the explained one.

    Attributes:
        similarity: Mean cosine of the models' embeddings.
    """

    similarity: Annotated[Number, is_a(SIMILARITY)]


@dataclass(frozen=True, kw_only=True)
class SameWords(Example):
    """A training example that shares words with the explained one."""

    shared_words: Annotated[Number, is_a(BM25)]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model output of this example that can be explained.

    Attributes:
        name: What to give as `output`.
        question: What its scores answer.
        stored: Whether its scores are stored; those of others are computed live on the page.
    """

    name: str
    question: str
    stored: bool


@dataclass(frozen=True, kw_only=True)
class Explained(Head):
    """One prediction, and the training examples that support and oppose it.

    Attributes:
        example: The explained test example.
        question: What the scores answer, such as `Why “Coat”?`
        about: The model output that the scores are about, as part of a sentence.
        probabilities: All classes, the likeliest first; empty without classes.
        supporting, opposing: The k strongest training examples of each sign, strongest first.
        without_supporting, without_opposing: Predicted change of the model output when all of these
            are removed; null while scores are uncalibrated.
        lds_of_this_example: LDS of this test example alone, a noisy number; null if not measured.
        similar: The k most similar training examples, if `show` asks for them.
        same_words: The k training examples with most words in common, if `show` asks for them.
        outputs: What can be explained of this example.
        groups: The groups of training examples that the influence comes from.
        made: How the example came about, if the study's models made it; else null.
    """

    example: Predicted
    question: str
    about: str
    probabilities: list[Likely]
    supporting: list[Influential]
    opposing: list[Influential]
    without_supporting: Annotated[Range | None, is_a(CHANGE)]
    without_opposing: Annotated[Range | None, is_a(CHANGE)]
    lds_of_this_example: Annotated[Number | None, is_a(LDS)]
    similar: list[Similar]
    same_words: list[SameWords]
    outputs: list[Choice]
    groups: list[GroupShare]
    made: Made | None


def answer(query: Query) -> Answer:
    """The k strongest training examples of each sign for one prediction."""
    study, location = query.study, query.location
    asked = query.needed("test", "the id of a test example, or its row as #17")
    algorithm, method, k = location.algorithm, query.method, location.k
    row = resolve_row(study, "test", asked)
    found = stored_explanation(study, row, k, algorithm, method, location.output)
    if found is None:
        words = ["--test", asked, "--output", str(location.output), "--algorithm", algorithm]
        raise StoreError(
            f"Scores of the output {location.output!r} are not stored: they are computed live, on "
            f"Explain or by `dataloupe explain {shlex.join([str(study.root), *words])}`."
        )
    tests = examples(study, "test", algorithm)
    (example,) = predicted(study, tests, np.array([row]))
    of_each = lds_of_each(study, algorithm, method)
    both, output = stored_influences(study, row, k, algorithm, method), found.output_name
    return Answer(
        Explained(
            **{**head(query), "trust": trust(study, algorithm, method, found.badge)},
            example=example,
            question=found.question,
            about=found.output_title,
            probabilities=_probabilities(study, row, algorithm),
            supporting=influential(study, found.supporting, output, method),
            opposing=influential(study, found.opposing, output, method),
            without_supporting=_change(found, both.without_support),
            without_opposing=_change(found, both.without_oppose),
            lds_of_this_example=None
            if of_each is None
            else number(LDS, of_each[row], method=method),
            similar=similar_to(study, "test", row, k, algorithm)
            if location.show in (SIMILAR, BOTH)
            else [],
            same_words=_same_words(study, row, k) if location.show == WORDS else [],
            outputs=[
                Choice(name=one.name, question=one.question, stored=one.stored)
                for one in outputs_of(study, row, algorithm)
            ],
            groups=groups_of(study, row, algorithm, method),
            made=made_of(study, row, k),
        )
    )


def _change(found: Explanation, change: Measured | None) -> Range | None:
    return None if change is None else measured(CHANGE, change, found.output_name, found.method)


def _probabilities(study: StudyReader, row: int, algorithm: str) -> list[Likely]:
    if not has(study, "classes") or not has_predictions(study, algorithm):
        return []
    found = read_probabilities(study, "test", row, algorithm)
    return [
        Likely(label=study.dataset.classes[place], probability=number(PROBABILITY, found[place]))
        for place in np.argsort(-found, kind="stable").tolist()
    ]


def similar_to(study: StudyReader, split: Split, row: int, k: int, algorithm: str) -> list[Similar]:
    """The training examples most similar to an example; none where similarity is not measured."""
    if not has_neighbours(study, algorithm):
        return []
    similarity = read_similarity(study, algorithm)
    if not similarity.checkpoints:
        return []
    rows, likeness = find_neighbours(study, split, row, min(k, similarity.stored), algorithm)
    return [
        Similar(**fields, similarity=number(SIMILARITY, one))
        for fields, one in zip(_named(study, rows), likeness.tolist(), strict=True)
    ]


def _same_words(study: StudyReader, row: int, k: int) -> list[SameWords]:
    rows, likeness = rows_similar_in_words(study, "test", row, k)
    return [
        SameWords(**fields, shared_words=number(BM25, one))
        for fields, one in zip(_named(study, rows), likeness.tolist(), strict=True)
    ]


def _named(study: StudyReader, rows: np.ndarray) -> list[dict[str, Any]]:
    records = examples(study, "train").table.iloc[rows].to_dict("records")
    return [
        named(study, "train", example, int(row)) for row, example in zip(rows, records, strict=True)
    ]
