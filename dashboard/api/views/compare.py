"""Compare: what two learning algorithms do differently, as far as that is stored."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dashboard.api.answer import Answer
from dashboard.api.head import Head, Trust, head_of, trust
from dashboard.api.numbers import Number, Range, is_a, maybe, measured_json, number
from dashboard.api.query import Query, refuse
from dashboard.read.comparisons import comparison_of, hypotheses, learned_by, name_of, read_query
from dashboard.read.studies import badge
from engine.applications.modeldiff.changed_examples import title_of
from engine.applications.modeldiff.learned import Learned
from engine.store.errors import StoreError
from engine.store.layout import TRAK
from engine.store.quantities import ACCURACY, COORDINATE, EFFECT, OUTPUT, P_VALUE, SIMILARITY
from engine.study.methods import has_scores
from engine.study.names import read_names, resolve_algorithm, resolve_scored_method
from engine.study.reader import StudyReader


@dataclass(frozen=True, kw_only=True)
class OnDirection:
    """An example along a direction; the sign gives its side."""

    row: int
    id: str
    coordinate: Annotated[Number, is_a(COORDINATE)]


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A direction along which one algorithm's attributions vary and the other's do not.

    Attributes:
        number: From 1, the strongest first.
        reading: What it is, in a sentence or two.
        own_variance, other_variance: Share of the variance of either algorithm's attributions that
            it explains.
        stability: Median cosine with the direction found on resampled test examples.
        p: Probability of such a direction under chance in training; null if not tested.
        significant: Whether that is below the level of the comparison; null if not tested.
        own_accuracy, other_accuracy: Of both algorithms on its test examples; null where
            predictions are neither right nor wrong.
        training: Training examples with the largest weights of either sign.
        tests: Test examples with the largest projections.
    """

    number: int
    reading: str
    own_variance: Annotated[Number, is_a(ACCURACY)]
    other_variance: Annotated[Number, is_a(ACCURACY)]
    stability: Annotated[Number, is_a(SIMILARITY)]
    p: Annotated[Number | None, is_a(P_VALUE)]
    significant: bool | None
    own_accuracy: Annotated[Number | None, is_a(ACCURACY)]
    other_accuracy: Annotated[Number | None, is_a(ACCURACY)]
    training: list[OnDirection]
    tests: list[OnDirection]


@dataclass(frozen=True, kw_only=True)
class LearnedExample:
    """A training example that one side learned and the other did not, and its output in both."""

    row: int
    id: str
    a: Annotated[Number, is_a(OUTPUT)]
    b: Annotated[Number, is_a(OUTPUT)]
    p: Annotated[Number, is_a(P_VALUE)]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two algorithms.

    Attributes:
        algorithm: Its name, or the id of an upload.
        name: Its name for people.
        method: The method of its scores.
        trust: How far these scores can be trusted; null if they are not ranked.
        checkpoints: Number of its checkpoints.
        directions: What it does and the other does not.
        learned: The first 100 training examples that it learned and the other did not, the largest
            difference first; `p` is adjusted for their number.
        learned_in_all: How many there are.
    """

    algorithm: str
    name: str
    method: str
    trust: Trust | None
    checkpoints: int
    directions: list[Direction]
    learned: list[LearnedExample]
    learned_in_all: int


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The average effect of a transformation of the test examples, at one intensity.

    Attributes:
        transformation: Its name.
        intensity: From 0 to 1.
        a, b, difference: Mean change of the true label's probability, under both algorithms.
        p: p-value of the difference, after Holm's correction; null if not judged.
    """

    transformation: str
    intensity: float
    a: Annotated[Range, is_a(EFFECT)]
    b: Annotated[Range, is_a(EFFECT)]
    difference: Annotated[Range, is_a(EFFECT)]
    p: Annotated[Number | None, is_a(P_VALUE)]


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A test of what a direction is about: when it was made, UTC, and its effects."""

    when: str
    effects: list[Effect]


@dataclass(frozen=True, kw_only=True)
class Comparison(Head):
    """What two learning algorithms do differently.

    Attributes:
        id: Of the comparison.
        when: When it was made, UTC.
        significance: How significance was tested, one sentence.
        indicative: Whether there are too few checkpoints for a conclusion.
        a, b: Both sides.
        hypotheses: Tests of hypotheses, newest first.
    """

    id: str
    when: str
    significance: str
    indicative: bool
    a: Side
    b: Side
    hypotheses: list[Hypothesis]


MOST_LEARNED = 100
"""Training examples that are listed for a side."""


def answer(query: Query) -> Answer:
    """The stored comparison of two algorithms."""
    study, given = query.study, query.given
    first = query.location.algorithm  # raises before there are data
    for side in ("a", "b"):
        algorithm = resolve_algorithm(study, given.get(side, first))
        if f"by_{side}" in given and (side == "a" or side in given):
            resolve_scored_method(study, algorithm, given[f"by_{side}"])
    asked = read_query(study, given)
    refuse(asked.problems)
    if asked.b is None:
        raise StoreError(
            "This study has one learning algorithm, so there is nothing to compare. Upload a "
            f"model, or run `dataloupe compare {study.root} --with FILE`."
        )
    found = comparison_of(study, asked)
    if found is None:
        verb = ["dataloupe", "compare", str(study.root), "--algorithms", asked.a, asked.b]
        if (asked.method_a, asked.method_b) != (TRAK, TRAK):
            verb += ["--method", asked.method_a, asked.method_b]
        raise StoreError(
            f"{name_of(study, asked.a)} and {name_of(study, asked.b)} are not compared yet. "
            f"`{shlex.join(verb)}` does it."
        )
    return Answer(
        Comparison(
            **head_of(study, asked.a, _ranked(study, asked.a, asked.method_a)),
            id=found["id"],
            when=found["when"],
            significance=found["significance"],
            indicative=found["indicative"],
            a=_side(study, found, "a"),
            b=_side(study, found, "b"),
            hypotheses=[
                Hypothesis(when=one["when"], effects=_effects(one))
                for one in hypotheses(study, found["id"])
            ],
        )
    )


def _ranked(study: StudyReader, algorithm: str, method: str) -> str | None:
    """The method, if its scores are ranked: only those have a badge."""
    return method if has_scores(study, algorithm, method) else None


def _side(study: StudyReader, found: dict[str, Any], key: str) -> Side:
    one = found[key]
    algorithm, method = one["algorithm"], one["method"]
    ranked = _ranked(study, algorithm, method)
    both = learned_by(study, found)
    rows = both.by(key)
    return Side(
        algorithm=algorithm,
        name=one["name"],
        method=method,
        trust=None
        if ranked is None
        else trust(study, algorithm, ranked, badge(study, algorithm, ranked)),
        checkpoints=one["checkpoints"],
        directions=[_direction(study, found, about) for about in found["directions"][key]],
        learned=_learned(study, both, rows[:MOST_LEARNED]),
        learned_in_all=len(rows),
    )


def _learned(study: StudyReader, both: Learned, rows: np.ndarray) -> list[LearnedExample]:
    ids, output = read_names(study, "train")["id"], study.dataset.output
    return [
        LearnedExample(
            row=int(row),
            id=str(ids[int(row)].as_py()),
            a=number(OUTPUT, both.a[row], output),
            b=number(OUTPUT, both.b[row], output),
            p=number(P_VALUE, both.p[row]),
        )
        for row in rows
    ]


def _direction(study: StudyReader, found: dict[str, Any], one: dict[str, Any]) -> Direction:
    training = [
        pair
        for sign in ("positive", "negative")
        for pair in zip(one[sign], one[f"{sign}_weights"], strict=True)
    ]
    return Direction(
        number=one["number"] + 1,
        reading=one["reading"],
        own_variance=number(ACCURACY, one["own_variance"]),
        other_variance=number(ACCURACY, one["other_variance"]),
        stability=number(SIMILARITY, one["stability"]),
        p=maybe(P_VALUE, one["p"]),
        significant=one["significant"],
        own_accuracy=maybe(ACCURACY, one["own_accuracy"]),
        other_accuracy=maybe(ACCURACY, one["other_accuracy"]),
        training=_along(study, "train", training),
        tests=_along(study, "test", list(zip(one["tests"], one["projections"], strict=True))),
    )


def _along(study: StudyReader, split: Any, pairs: list[tuple[int, float]]) -> list[OnDirection]:
    ids = read_names(study, split)["id"]
    return [
        OnDirection(row=row, id=str(ids[row].as_py()), coordinate=number(COORDINATE, coordinate))
        for row, coordinate in pairs
    ]


def _effects(hypothesis: dict[str, Any]) -> list[Effect]:
    return [
        Effect(
            transformation=title_of(tested["name"]),
            intensity=effect["intensity"],
            p=maybe(P_VALUE, p),
            **{
                key: measured_json(EFFECT, effect[key]["probability"])
                for key in ("a", "b", "difference")
            },
        )
        for tested in hypothesis["tested"]
        for effect, p in zip(tested["effects"], tested["adjusted"], strict=True)
    ]
