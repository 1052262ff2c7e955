"""What if: the predicted effect of removing training examples, and its verifications."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from dashboard.api.answer import Answer, Rows
from dashboard.api.examples import Example, Predicted, named, predicted_fields
from dashboard.api.head import Head, head
from dashboard.api.numbers import Number, Range, is_a, maybe, measured, within
from dashboard.api.query import Query
from dashboard.read.effects import counterfactual
from dashboard.read.studies import Examples, examples, kept_verifications
from engine.applications.joint_removal import MOST, SUPPORTERS, strongest_together
from engine.applications.replay.removals import ExactChange, exact_changes
from engine.applications.verification import Verification
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.store.errors import DataloupeError
from engine.store.quantities import CHANGE, OUTPUT, SHARE
from engine.study.groups import resolve_group
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet, name_set, parse_examples, removal_set


@dataclass(frozen=True, kw_only=True)
class Changed(Predicted):
    """A test prediction, with what the removal is predicted to do to it.

    Attributes:
        change: Of the model output; while scores are uncalibrated, a sum of scores, without a unit.
        before, after: The model output before and after; `after` is null while scores are
            uncalibrated.
        flips: Whether the predicted class changes; null where that is not predicted.
    """

    change: Annotated[Range, is_a(CHANGE)]
    before: Annotated[Number | None, is_a(OUTPUT)]
    after: Annotated[Number | None, is_a(OUTPUT)]
    flips: bool | None


@dataclass(frozen=True, kw_only=True)
class ExactlyChanged(Predicted):
    """A test prediction with exact scores, with what the removal does to it by replay.

    Attributes:
        change: Of the model output, mean over the models; the interval is their least and most.
        models: Number of replayed models.
        agreeing: In how many of them the output changes in this direction.
    """

    change: Annotated[Range, is_a(CHANGE)]
    models: int
    agreeing: int


@dataclass(frozen=True, kw_only=True)
class GroupChange:
    """The mean change of the test examples of one group, such as a class."""

    group: str
    change: Annotated[Range, is_a(CHANGE)]


@dataclass(frozen=True, kw_only=True)
class VerifiedOutcome:
    """A removal's effect on one test example, measured by retraining.

    Attributes:
        id: The test example.
        predicted: Change that the scores predicted; null if they were not calibrated.
        change: Actual change of the model output.
        flip_rate: Share of the retrained models that flip; null for a task without classes.
    """

    id: str
    predicted: Annotated[Range | None, is_a(CHANGE)]
    change: Annotated[Range, is_a(CHANGE)]
    flip_rate: Annotated[Range | None, is_a(SHARE)]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """One verification by retraining.

    Attributes:
        id: Its id.
        models: Number of retrained models.
        created: When, UTC.
        outcomes: One a test example that was asked for.
    """

    id: str
    models: int
    created: str
    outcomes: list[VerifiedOutcome]


@dataclass(frozen=True, kw_only=True)
class WhatIf(Head):
    """The predicted effect of removing training examples. Nothing was retrained for it.

    Attributes:
        removed: The removed training examples.
        set: Key of this removal set, for `set` and for links; null if it is not saved.
        calibrated: Whether changes are in units of the model output.
        flips: How many predicted classes are predicted to change; null where that is not predicted.
        lost, won: Of them, those from right to wrong and from wrong to right.
        of: How many test predictions there are.
        emptied: Groups without any training example left: do not trust the prediction for them.
        by_group: Mean change of each group, the most negative first.
        verifications: Of exactly this removal by this method.
        exact: The test predictions whose exact scores are kept in the study, by replay: prefer
            these changes to those in `predictions` where training is smooth.
        predictions: The k test predictions that fall most, then the k that rise most; with
            `page=all`, every one in the order of the data.
    """

    removed: list[Example]
    set: str | None
    calibrated: bool
    flips: int | None
    lost: int | None
    won: int | None
    of: int
    emptied: list[str]
    by_group: list[GroupChange]
    verifications: list[Verified]
    exact: list[ExactlyChanged]
    predictions: list[Changed] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """What removing these training examples is predicted to do."""
    study, algorithm, method = query.study, query.algorithm, query.method
    removed, saved = _removed(query)
    by = query.given.get("by")
    if by is not None:
        by = resolve_group(study, by)
    found = counterfactual(study, algorithm, method, removed, by)
    training, tests = (examples(study, split, algorithm) for split in ("train", "test"))  # type: ignore[arg-type]
    records = training.table.iloc[removed.rows].to_dict("records")
    k = query.location.k
    rows = np.concatenate([found.strongest(-1, k), found.strongest(1, k)])
    if query.everything:
        rows = np.arange(len(found.change))
    kept = kept_verifications(study, algorithm)
    mine = [one for one in kept if one.removed == removed.rows.tolist() and one.method == method]
    content = WhatIf(
        **head(query),
        removed=[
            Example(**named(study, "train", one, int(row)))
            for row, one in zip(removed.rows, records, strict=True)
        ],
        set=removed.key if saved else None,
        calibrated=found.calibrated,
        flips=len(found.flips) if found.can_flip else None,
        lost=len(found.lost) if found.can_flip else None,
        won=len(found.won) if found.can_flip else None,
        of=len(found.change),
        emptied=found.emptied,
        by_group=[
            GroupChange(group=group, change=_change(found, mean.mean, mean.low, mean.high))
            for group, mean in sorted(found.by_group.items(), key=lambda item: item[1].mean)
        ],
        verifications=[_verified(study, one) for one in mine],
        exact=_exact(study, tests, exact_changes(study, algorithm, removed.rows)),
    )
    entries = _entries(study, tests, found, rows)
    return Answer(content, Rows("predictions", entries, query.everything))


def _exact(study: StudyReader, tests: Examples, changes: list[ExactChange]) -> list[ExactlyChanged]:
    rows = np.array([one.test for one in changes], np.int64)
    return [
        ExactlyChanged(
            **fields,
            change=measured(CHANGE, one.change, study.dataset.output, "replay"),
            models=one.models,
            agreeing=one.agreeing,
        )
        for fields, one in zip(predicted_fields(study, tests, rows), changes, strict=True)
    ]


def _removed(query: Query) -> tuple[RemovalSet, bool]:
    """The removal set, and whether it is saved in the study."""
    study, given = query.study, query.given
    ways = [name for name in ("remove", "set", "together") if name in given]
    if len(ways) > 1:
        raise DataloupeError(f"Give only one of {' and '.join(f'`{name}`' for name in ways)}.")
    if "set" in given:
        return removal_set(study, given["set"]), True
    if "together" in given:
        size = query.number("supporters", SUPPORTERS, MOST)
        found = strongest_together(study, given["together"], size, query.algorithm).rows
        return name_set(study, found.tolist(), "chosen together"), False
    words = query.needed(
        "remove",
        "ids of training examples, or rows as #17, separated by commas, or `set` or `together`",
    )
    # Not `read_examples`, which opens a file of this name.
    named_ones = parse_examples(study, words)
    listed = [*named_ones.rows.tolist(), *named_ones.unknown]
    return name_set(study, listed, f"{len(listed)} training examples"), False


def _change(found: Counterfactual, mean: float, low: float | None, high: float | None) -> Range:
    if found.calibrated:
        return within(CHANGE, mean, low, high, found.output, found.method)
    return Range(
        value=float(mean),
        text=CHANGE.text(mean),
        low=None,
        high=None,
        interval="",
        quantity="sum of scores",
        unit=None,
        method=found.method,
    )


def _entries(
    study: StudyReader, tests: Examples, found: Counterfactual, rows: np.ndarray
) -> Iterator[Changed]:
    flips, after = set(found.flips.tolist()), found.after

    def ends(array: np.ndarray | None, row: int) -> float | None:
        return None if array is None else float(array[row])

    for fields in predicted_fields(study, tests, rows):
        row = fields["row"]
        yield Changed(
            **fields,
            change=_change(
                found, float(found.change[row]), ends(found.low, row), ends(found.high, row)
            ),
            before=maybe(OUTPUT, ends(found.before, row), found.output),
            after=maybe(OUTPUT, ends(after, row), found.output, found.method),
            flips=row in flips if found.can_flip else None,
        )


def _verified(study: StudyReader, one: Verification) -> Verified:
    output = study.dataset.output

    def outcome(found: Any) -> VerifiedOutcome:
        return VerifiedOutcome(
            id=found.id,
            predicted=None
            if found.predicted is None
            else measured(CHANGE, found.predicted, output, one.method),
            change=within(CHANGE, found.change, found.low, found.high, output),
            flip_rate=None if found.flips is None else measured(SHARE, found.flips),
        )

    return Verified(
        id=one.id,
        models=one.seeds,
        created=one.created,
        outcomes=[outcome(found) for found in one.outcomes],
    )
