"""The verdict on a method: a plain sentence that follows from the audit's figures.

A method is judged by how far it gets from doing nothing to the floor, and by whether a membership
test can tell its models from retrained ones. Doing nothing passes neither. docs/unlearning.md
states the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.applications.unlearning.audit_record import PARTS, Audit, MethodAudit, Part
from engine.applications.unlearning.settings import TITLES, UNCHANGED
from engine.store.quantities import ACCURACY, KLOM, P_VALUE, SHARE
from engine.store.text import counted

Grade = Literal["good", "part", "harm", "no", "idle"]
GRADES: dict[Grade, str] = {
    "good": "Forgotten",
    "part": "Partly forgotten",
    "harm": "Forgotten at a price",
    "no": "Not forgotten",
    "idle": "Little to forget",
}
LEVEL = 0.05
"""Of the tests over models."""
ENOUGH_OF_WAY = 0.8
"""Share of the way from doing nothing to the floor that counts as forgotten."""
LITTLE_ADVANTAGE = 0.1
"""Largest advantage of a membership test that can hardly tell: 55 % of its guesses are right."""
FARTHER = 1.1
"""Above this many times the distance, models are clearly farther away."""
TOLERATED = 0.02
"""Loss of accuracy that is tolerated."""
FEW = 20
"""An audit of fewer models than this gets a caution."""
BENCHMARKS = (UNCHANGED, "oracle")
"""Methods to compare with: one does nothing, the other learns from the oracles themselves."""


@dataclass(frozen=True)
class MethodVerdict:
    """The verdict on a method.

    Attributes:
        grade: One of GRADES.
        summary: Two or three sentences.
        caution: What to keep in mind; may be empty.
    """

    grade: Grade
    summary: str
    caution: str


def method_verdict(audited: Audit, method: str) -> MethodVerdict:
    """The verdict on a method. Raises KeyError if the audit does not include it."""
    one, nothing = audited.of(method), audited.of(UNCHANGED)
    harmed = [part for part in PARTS if part != "forget" and harms(audited, one, part)]
    cautions = []
    if audited.models < FEW:
        cautions.append(f"{audited.models} models are few: audit with 50.")
    if nothing.differs["forget"] > LEVEL and not harmed:
        text = (
            "The original models cannot be told from retrained ones on these examples: their KLoM "
            f"is {KLOM.text(nothing.forget.klom.mean.mean)}, "
            f"p = {P_VALUE.text(nothing.differs['forget'])}."
        )
        return MethodVerdict("idle", text, " ".join(cautions))
    if one.forget.at_half.mean.high < audited.floor["forget"].mean.low:
        cautions.append(
            "Closer than retrained models are to each other. KLoM also falls if models are too "
            "similar, or if a few are so far off that its bins no longer separate the others."
        )
    closer = one.closer["forget"] <= LEVEL
    grade: Grade = "no"
    if closer and harmed:
        grade = "harm"
    elif closer:
        grade = "good" if forgets(one) else "part"
    text = f"{TITLES[method][0]}: {_distance(audited, one)}. {_remembers(audited, one)}"
    if harmed:
        text += f" They are worse than before on {' and on '.join(map(_name, harmed))}."
    elif closer:
        text += " The retain set and the test set are not harmed."
    else:
        text += " That is not significantly closer than doing nothing."
    cost = f"{one.cost_share:.1%} of a retraining per model"
    if one.once_share:
        cost += f", and {one.once_share:.1%} once for all models"
    return MethodVerdict(grade, f"{text} It took {cost}.", " ".join(cautions))


def forgets(one: MethodAudit) -> bool:
    """Whether a method gets far enough, and leaves a membership test little advantage."""
    far = one.share_of_way is not None and one.share_of_way.mean >= ENOUGH_OF_WAY
    return far and one.attack.mean <= LITTLE_ADVANTAGE


def _distance(audited: Audit, one: MethodAudit) -> str:
    floor, was = (
        found.mean.mean for found in (audited.floor["forget"], audited.of(UNCHANGED).forget.at_half)
    )
    figures = (
        f"KLoM {KLOM.text(one.forget.at_half.mean.mean)}, doing nothing {KLOM.text(was)}, "
        f"retrained models compared with each other {KLOM.text(floor)}"
    )
    way = one.share_of_way
    if way is None:
        return f"on the forget set, models stay as far from retrained ones as before ({figures})"
    if way.mean < 0:
        return f"on the forget set, models are farther from retrained ones than before ({figures})"
    return (
        f"on the forget set, models get {SHARE.text(way.mean)} of the way from doing "
        f"nothing to retraining (95% interval {SHARE.range(max(0.0, way.low), way.high)}; "
        f"{figures})"
    )


def _remembers(audited: Audit, one: MethodAudit) -> str:
    """What a membership test can tell, and which examples are still remembered."""
    right = 0.5 + one.attack.mean / 2
    text = "A membership test tells them from retrained models in "
    text += f"{SHARE.text(max(right, 0.5))} of guesses"
    if one.remembered:
        ids = [audited.forget_ids[audited.forget.index(row)] for row in one.remembered[:3]]
        many = len(one.remembered) > 1
        text += (
            f", and {counted(len(one.remembered), 'forgotten example')} of "
            f"{len(audited.forget):,} {'are' if many else 'is'} still predicted better than "
            f"retrained models do, most clearly {', '.join(ids)}"
        )
    accuracy, retrained = one.forget.accuracy, one.forget.oracle_accuracy
    if accuracy is None or retrained is None:
        return f"{text}."
    accuracies = f"{ACCURACY.text(accuracy)} (retrained: {ACCURACY.text(retrained)})"
    return f"{text}; accuracy on the forget set is {accuracies}."


def harms(audited: Audit, one: MethodAudit, part: Part) -> bool:
    """Whether a method harms a part of the examples.

    If so, its models are significantly and clearly farther from the oracles than the originals, or
    less accurate than both.
    """
    mine, was = getattr(one, part), getattr(audited.of(UNCHANGED), part)
    far, before = mine.at_half.mean, was.at_half.mean
    farther = far.mean > FARTHER * max(before.mean, audited.floor[part].mean.mean)
    if farther and one.closer[part] >= 1 - LEVEL:
        return True
    if mine.accuracy is None:
        return False
    return bool(mine.accuracy < min(was.accuracy, mine.oracle_accuracy) - TOLERATED)


def best(audited: Audit) -> str:
    """The method to show first: least harm, then closest to the oracles on the forget set."""
    rivals: Sequence[MethodAudit] = [
        one for one in audited.methods if one.method not in BENCHMARKS
    ] or audited.methods

    def order(one: MethodAudit) -> tuple[int, float]:
        harmed = sum(harms(audited, one, part) for part in PARTS if part != "forget")
        return harmed, float(one.forget.at_half.mean.mean)

    return min(rivals, key=order).method


def _name(part: Part) -> str:
    return {
        "forget": "the forget set",
        "retain": "the retain set",
        "test": "test examples",
    }[part]
