"""The record of an audit: each method's distance from the oracles, and its cost."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from engine import store
from engine.applications.unlearning.klom import Direction, Klom
from engine.applications.unlearning.sources import Source
from engine.attribution.evaluation.quality import Measured
from engine.store import layout
from engine.store.errors import MissingFile
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

CODE = 4
"""Increment when the same models would be judged differently."""
Part = Literal["forget", "retain", "test"]
PARTS: tuple[Part, ...] = ("forget", "retain", "test")


@dataclass(frozen=True)
class Judged:
    """The distance of models from the oracles on one part of the examples.

    Attributes:
        klom: KLoM of N models against N oracles.
        at_half: KLoM of N/2 against N/2, to compare with the floor.
        accuracy: Share of correct predictions, mean over the models; None without outcomes.
        oracle_accuracy: The same for the oracles.
    """

    klom: Klom
    at_half: Klom
    accuracy: float | None
    oracle_accuracy: float | None


@dataclass(frozen=True)
class MethodAudit:
    """One method, judged.

    Attributes:
        method: Its name in `engine.applications.unlearning.settings.GRIDS`.
        hyper: Its hyper-parameters, chosen by the search or given.
        forget, retain, test: Results on the forget set, part of the retain set, all test examples.
        share_of_way: Share of the way from doing nothing to the floor on the forget set; None for
            doing nothing, and where that is no farther than the floor.
        attack: Advantage of a membership test against retrained models on the forget set
            (`model_tests.membership_attack`).
        remembered: Training rows that its models still predict better than retrained models do,
            the clearest first.
        differs: p-value, by part, that its models are farther from oracles than oracles are.
        closer: p-value, by part, that its models are closer to the oracles than the originals are;
            a value near 1 means that they are farther.
        membership: Advantage in separating forgotten from test examples by the margin: 2 · AUC − 1,
            mean over models. 0 is none; that of the oracles is in `Audit.membership`.
        cost_share: Cost for one model, as a share of a retraining.
        once_share: Cost of the predicted changes, once for all models, as a share of a retraining.
            The search is not counted, and neither are the oracles that oracle matching needs.
        fingerprint: Fingerprint of the models that unlearned.
    """

    method: str
    hyper: dict[str, Any]
    forget: Judged
    retain: Judged
    test: Judged
    share_of_way: Measured | None
    attack: Measured
    remembered: list[int]
    differs: dict[Part, float]
    closer: dict[Part, float]
    membership: float
    cost_share: float
    once_share: float
    fingerprint: str


@dataclass(frozen=True)
class Audit:
    """Methods, judged by one set of oracles.

    Attributes:
        id: Names the request: the same request has the same id.
        forget, forget_ids: Training rows of the forget set, ascending, and their ids.
        models: N, the number of models of each kind.
        direction: Direction of KLoM.
        source: Source of the predicted changes that matching learns.
        ceiling: The largest possible KLoM.
        floor: KLoM of half of the oracles against the other half, by part.
        membership: Membership advantage of the oracles.
        correlation, error: Predicted against actual changes of the mean logits, by part: Pearson
            correlation and root mean squared error; None if no method needed predictions.
        methods: In the order of the request.
        budget: Largest cost of each method, as a share of a retraining.
        fingerprint: Fingerprint of the oracles.
        created, device: Time (UTC) and device.
        forget_files: The files of the forget set's pictures, None for each without a file; empty in
            audits from before files were kept.
    """

    id: str
    algorithm: str
    forget: list[int]
    forget_ids: list[str]
    models: int
    direction: Direction
    source: Source
    ceiling: float
    floor: dict[Part, Klom]
    membership: float
    correlation: dict[str, float] | None
    error: dict[str, float] | None
    methods: list[MethodAudit]
    budget: float
    fingerprint: str
    created: str
    device: str
    forget_files: list[str | None] = field(default_factory=list)

    def of(self, method: str) -> MethodAudit:
        """The result of one method. Raises KeyError if the audit does not include it."""
        return {one.method: one for one in self.methods}[method]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Audit:
        """The reverse of `to_dict`."""
        methods = [
            MethodAudit(
                **{
                    **one,
                    **{part: _judged(one[part]) for part in PARTS},
                    "attack": Measured(**one["attack"]),
                    "share_of_way": one["share_of_way"] and Measured(**one["share_of_way"]),
                }
            )
            for one in content["methods"]
        ]
        floor = {part: _klom(content["floor"][part]) for part in PARTS}
        return cls(**{**content, "methods": methods, "floor": floor})


def _klom(content: Mapping[str, Any]) -> Klom:
    return Klom(Measured(**content["mean"]), Measured(**content["p95"]), content["models"])


def _judged(content: Mapping[str, Any]) -> Judged:
    return Judged(**{**content, **{name: _klom(content[name]) for name in ("klom", "at_half")}})


def read_audits(study: StudyReader, algorithm: str | None = None) -> list[Audit]:
    """All audits in the study, oldest first. Raises StoreError for a broken file.

    Audits judged by older rules of Dataloupe are skipped. Repeating them trains nothing.
    """
    kept = []
    for path in layout.unlearning_audit_files(study.root, resolve_algorithm(study, algorithm)):
        with contextlib.suppress(MissingFile):  # removed just now
            kept.append(store.read_json(path))
    found = [Audit.from_dict(one) for one in kept if one.pop("code", None) == CODE]
    return sorted(found, key=lambda one: (one.created, one.id))


def keep_audit(study: StudyReader, audit: Audit) -> None:
    """Write an audit into the study."""
    content = {"code": CODE, **audit.to_dict()}
    store.write_json(
        layout.unlearning_audit_file(study.root, audit.algorithm, audit.id), content, audit.id
    )
