"""The verdict on a method: a plain sentence that follows from the audit's figures.

Models are compared with the floor, half against half. docs/unlearning.md states the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.applications.unlearning.audit_record import PARTS, Audit, MethodAudit, Part
from engine.applications.unlearning.settings import TITLES, UNCHANGED
from engine.store.text import number

Grade = Literal["good", "part", "harm", "no", "idle"]
GRADES: dict[Grade, str] = {
    "good": "Forgotten",
    "part": "Partly forgotten",
    "harm": "Forgotten at a price",
    "no": "Not forgotten",
    "idle": "Little to forget",
}
NEAR = 2.0
"""Up to this many times the floor is close to the oracles."""
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
        summary: One or two sentences.
        caution: What to keep in mind; may be empty.
    """

    grade: Grade
    summary: str
    caution: str


def method_verdict(audited: Audit, method: str) -> MethodVerdict:
    """The verdict on a method. Raises KeyError if the audit does not include it."""
    one, nothing = audited.of(method), audited.of(UNCHANGED)
    floor = audited.floor["forget"].mean
    mine, was = one.forget.at_half.mean, nothing.forget.at_half.mean
    harmed = [part for part in PARTS if part != "forget" and harms(audited, one, part)]
    cautions = []
    if audited.models < FEW:
        cautions.append(f"{audited.models} models are few: audit with 50.")
    if was.low <= floor.high and not harmed:
        text = (
            "The original models already predict these examples as retrained models do: doing "
            f"nothing has KLoM {number(was.mean)}, retrained models compared with each other have "
            f"{number(floor.mean)}."
        )
        return MethodVerdict("idle", text, " ".join(cautions))
    if mine.high < floor.low:
        cautions.append(
            "Closer than retrained models are to each other. KLoM also falls if models are too "
            "similar, or if a few are so far off that its bins no longer separate the others."
        )
    times = f"{mine.mean / floor.mean:.1f} times" if floor.mean > 0 else "many times"
    text = (
        f"{TITLES[method][0]}: on the forget set, models are {times} as far from retrained models "
        f"as those are from each other (KLoM {number(mine.mean)}; retrained models compared with "
        f"each other {number(floor.mean)}; doing nothing {number(was.mean)})"
    )
    better = mine.high < was.low
    grade: Grade = "no"
    if better and harmed:
        grade = "harm"
    elif better:
        grade = "good" if mine.mean <= NEAR * floor.mean else "part"
    if harmed:
        text += f"; they are worse than before on {' and on '.join(map(_name, harmed))}"
    elif better:
        text += "; the retain set and the test set are not harmed"
    else:
        text += "; that is not significantly closer than doing nothing"
    cost = f"{one.cost_share:.1%} of a retraining per model"
    if one.once_share:
        cost += f", and {one.once_share:.1%} once for all models"
    return MethodVerdict(grade, f"{text}. It took {cost}.", " ".join(cautions))


def harms(audited: Audit, one: MethodAudit, part: Part) -> bool:
    """Whether a method harms a part of the examples.

    If so, its models are clearly farther from the oracles than both the originals and other
    oracles, or less accurate than both.
    """
    mine, was = getattr(one, part), getattr(audited.of(UNCHANGED), part)
    far, before = mine.at_half.mean, was.at_half.mean
    farther = far.mean > FARTHER * max(before.mean, audited.floor[part].mean.mean)
    accurate = min(was.accuracy, mine.oracle_accuracy) - TOLERATED
    return bool((farther and far.low > before.high) or mine.accuracy < accurate)


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
