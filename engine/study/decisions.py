"""Decisions about the labels of training examples: keep, relabel or remove, with undo.

    decide(study, 17, "relabel", "Coat")
    read_decisions(study)[17].label
    undo(study, 17)

They are kept like the tags of predictions (`engine.study.tags`): every change is a file of its own.
They are about the data, so all algorithms share them. The newest that was not undone counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.store.errors import DataloupeError
from engine.study.capabilities import require
from engine.study.names import read_names_of, resolve_row
from engine.study.reader import StudyReader
from engine.study.tags import Change, changes, write_change

Verdict = Literal["keep", "relabel", "remove"]
VERDICTS: tuple[Verdict, ...] = ("keep", "relabel", "remove")
_ABOUT_DATA = ""
_TO = "relabel="


@dataclass(frozen=True)
class Decision:
    """What somebody decided about a training example.

    Attributes:
        row: Training row.
        verdict: `keep` its label, `relabel` it, or `remove` it.
        label: The new label of `relabel`; None for others.
        who: Who decided; empty if that is not known.
        at: Nanoseconds since 1970.
        change: Id of the stored change, to undo it.
    """

    row: int
    verdict: Verdict
    label: str | None
    who: str
    at: int
    change: str


def decide(
    study: StudyReader, row: int, verdict: Verdict, label: str | None = None, who: str = ""
) -> Decision | None:
    """Decide about a training row; return None if that was decided already.

    Raises:
        DataloupeError: There is no such verdict, label or row; the label is the one that it has;
            or the study cannot be written. MissingCapability: Examples do not have one class each.
    """
    row = resolve_row(study, "train", int(row))
    value = _checked(study, row, verdict, label)
    current = read_decisions(study).get(row)
    if current is not None and _value(current) == value:
        return None
    return _decision(write_change(study, _ABOUT_DATA, row, "tag", value, who, "train"))


def undo(study: StudyReader, row: int, who: str = "") -> Decision | None:
    """Take back and return the current decision about a row, so that the one before counts again;
    None if there is none."""
    current = read_decisions(study).get(row)
    if current is not None:
        write_change(study, _ABOUT_DATA, row, "undo", current.change, who, "train")
    return current


def read_decisions(study: StudyReader) -> dict[int, Decision]:
    """The current decision about every training row that has one, by row."""
    return replay(changes(study, _ABOUT_DATA, "train"))


def replay(every: Iterable[Change]) -> dict[int, Decision]:
    """The decisions that count after these changes, which are in the order of time."""
    log = list(every)
    undone = {one.value for one in log if one.action == "undo"}
    found = {}
    for one in log:
        if one.action == "tag" and one.id not in undone:
            found[one.test] = _decision(one)
    return found


def newest(decisions: dict[int, Decision]) -> Decision | None:
    """The decision that was made last; None if there is none."""
    return max(decisions.values(), key=lambda one: (one.at, one.change), default=None)


def rows_of(decisions: dict[int, Decision], verdict: Verdict) -> np.ndarray:
    """Training rows with this verdict, ascending int64."""
    return np.array(sorted(r for r, one in decisions.items() if one.verdict == verdict), np.int64)


def _checked(study: StudyReader, row: int, verdict: str, label: str | None) -> str:
    """The stored text of a decision."""
    if verdict not in VERDICTS:
        raise DataloupeError(f"A decision is {', '.join(VERDICTS)}, not {verdict!r}.")
    if verdict != "relabel":
        return verdict
    require(study, "classes", "New labels")
    known = study.dataset.classes
    if label not in known:
        raise DataloupeError(f"There is no class {label!r} in this study.")
    if label == str(read_names_of(study, "train", [row])[0]["label"]):
        raise DataloupeError(f"Training row {row} has the label {label!r} already: keep it.")
    return _TO + label


def _value(decision: Decision) -> str:
    return decision.verdict if decision.label is None else _TO + decision.label


def _decision(change: Change) -> Decision:
    if change.value.startswith(_TO):
        verdict: Verdict = "relabel"
        label: str | None = change.value.removeprefix(_TO)
    else:
        verdict, label = ("remove" if change.value == "remove" else "keep"), None
    return Decision(change.test, verdict, label, change.who, change.at, change.id)
