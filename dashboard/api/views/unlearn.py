"""Unlearn: the stored audits of unlearned models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dashboard.api.answer import Answer
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, Range, is_a, measured, number
from dashboard.api.query import Query
from dashboard.read.audits import audits, before_and_after, made_by_audit, title_of
from engine.applications.unlearning.audit_record import PARTS, Audit, Judged, MethodAudit
from engine.applications.unlearning.klom import Klom
from engine.applications.unlearning.made import SIDES
from engine.applications.unlearning.method_verdict import GRADES, best, method_verdict
from engine.store.quantities import ACCURACY, FEATURE_DISTANCE, KLOM, SHARE
from engine.study.capabilities import require
from engine.study.reader import StudyReader
from engine.study.removal_sets import removal_set


@dataclass(frozen=True, kw_only=True)
class OnPart:
    """Unlearned models on one part of the examples, against retrained ones.

    Attributes:
        part: `forget`, `retain` or `test`.
        klom: Mean over the examples, between halves of the models, as the floor is.
        klom_p95: The 95th percentile over the examples.
        floor: KLoM of retrained models against each other.
        accuracy: Of the unlearned models; null without right and wrong.
        retrained_accuracy: Of the retrained models.
    """

    part: str
    klom: Annotated[Range, is_a(KLOM)]
    klom_p95: Annotated[Range, is_a(KLOM)]
    floor: Annotated[Range, is_a(KLOM)]
    accuracy: Annotated[Number | None, is_a(ACCURACY)]
    retrained_accuracy: Annotated[Number | None, is_a(ACCURACY)]


@dataclass(frozen=True, kw_only=True)
class Unlearned:
    """One unlearning method in an audit.

    Attributes:
        name, title: Its name, and that for people.
        grade, summary, caution: The verdict on it.
        cost: Of one model, as a share of a retraining.
        parts: On the forget set, part of the retain set, and all test examples.
    """

    name: str
    title: str
    grade: str
    summary: str
    caution: str
    cost: Annotated[Number, is_a(SHARE)]
    parts: list[OnPart]


@dataclass(frozen=True, kw_only=True)
class Supported:
    """A test example that the forget set supports, and who answers it right.

    Attributes:
        row, id: Of the test example.
        before: Share of the original models that answer it right.
        unlearned: Of the models that unlearned by the best method.
        retrained: Of the models retrained without the forget set.
    """

    row: int
    id: str
    before: Annotated[Number, is_a(SHARE)]
    unlearned: Annotated[Number, is_a(SHARE)]
    retrained: Annotated[Number, is_a(SHARE)]


@dataclass(frozen=True, kw_only=True)
class FromSeed:
    """What models make from one seed: how far it is from what retrained models make of it.

    Attributes:
        seed: Its number.
        before: Of the original models.
        unlearned: Of the models that unlearned by the best method.
        retrained: Of the models retrained without the forget set, from each other.
    """

    seed: int
    before: Annotated[Number, is_a(FEATURE_DISTANCE)]
    unlearned: Annotated[Number, is_a(FEATURE_DISTANCE)]
    retrained: Annotated[Number, is_a(FEATURE_DISTANCE)]


@dataclass(frozen=True, kw_only=True)
class StoredAudit:
    """One audit: unlearned models against models retrained without the forget set.

    Attributes:
        id: Its id.
        created: When, UTC.
        forget_rows, forget_ids: The forgotten training examples.
        models: Number of models of each kind.
        best: Name of the best method.
        methods: Each method that was audited.
        supported: With `set`, the test examples that the forget set supports most, the most first;
            none without right and wrong.
        made: With `set`, what models of the best method make from each seed, where they make
            something.
    """

    id: str
    created: str
    forget_rows: list[int]
    forget_ids: list[str]
    models: int
    best: str
    methods: list[Unlearned]
    supported: list[Supported]
    made: list[FromSeed]


@dataclass(frozen=True, kw_only=True)
class Audits(Head):
    """The stored audits, newest first.

    Attributes:
        audits: Of the algorithm; with `set`, those that forget exactly these examples.
        note: How an audit is made.
    """

    audits: list[StoredAudit]
    note: str


def answer(query: Query) -> Answer:
    """The stored audits."""
    study, algorithm = query.study, query.algorithm
    require(study, "unlearning", "Unlearning")
    found = audits(study, algorithm)
    if "set" in query.given:
        rows = removal_set(study, query.given["set"]).rows.tolist()
        found = [one for one in found if one.forget == rows]
    return Answer(
        Audits(
            **head(query),
            audits=[_audit(study, one, "set" in query.given) for one in reversed(found)],
            note=f"`dataloupe unlearn {study.root} --forget IDS --audit 50` makes an audit.",
        )
    )


def _audit(study: StudyReader, one: Audit, with_tests: bool) -> StoredAudit:
    return StoredAudit(
        id=one.id,
        created=one.created,
        forget_rows=one.forget,
        forget_ids=one.forget_ids,
        models=one.models,
        best=best(one),
        methods=[_method(one, method) for method in one.methods],
        supported=_supported(study, one) if with_tests else [],
        made=_made(study, one) if with_tests else [],
    )


def _supported(study: StudyReader, one: Audit) -> list[Supported]:
    found = before_and_after(study, one, best(one), "test")
    if found.before.right is None:
        return []
    ids = study.table("test")["id"]
    shares = (each.share_right for each in (found.before, found.unlearned, found.oracle))
    return [
        Supported(
            row=int(row),
            id=str(ids.iloc[row]),
            before=number(SHARE, before),
            unlearned=number(SHARE, unlearned),
            retrained=number(SHARE, retrained),
        )
        for row, before, unlearned, retrained in zip(found.rows, *shares, strict=True)
    ]


def _made(study: StudyReader, one: Audit) -> list[FromSeed]:
    found = made_by_audit(study, one, best(one))
    if found is None:
        return []
    return [
        FromSeed(
            seed=int(seed),
            **{side: number(FEATURE_DISTANCE, found.distances[side][place]) for side in SIDES},
        )
        for place, seed in enumerate(found.seeds)
    ]


def _accuracy(share: float | None) -> Number | None:
    return None if share is None else number(ACCURACY, share)


def _method(audit: Audit, one: MethodAudit) -> Unlearned:
    verdict = method_verdict(audit, one.method)
    judged = {"forget": one.forget, "retain": one.retain, "test": one.test}
    return Unlearned(
        name=one.method,
        title=title_of(one.method),
        grade=GRADES[verdict.grade],
        summary=verdict.summary,
        caution=verdict.caution,
        cost=number(SHARE, one.cost_share),
        parts=[_part(part, judged[part], audit.floor[part]) for part in PARTS],
    )


def _part(part: str, one: Judged, floor: Klom) -> OnPart:
    return OnPart(
        part=part,
        klom=measured(KLOM, one.at_half.mean),
        klom_p95=measured(KLOM, one.at_half.p95),
        floor=measured(KLOM, floor.mean),
        accuracy=_accuracy(one.accuracy),
        retrained_accuracy=_accuracy(one.oracle_accuracy),
    )
