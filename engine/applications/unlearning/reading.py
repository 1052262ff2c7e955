"""What an audit says of a method, in a plain sentence that follows from its figures.

Models are compared with the floor, half against half. The rules are few and stand in
docs/unlearning.md too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.applications.unlearning.audit import NOTHING, PARTS, Audit, MethodAudit, Part
from engine.applications.unlearning.settings import TITLES
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
"""So many times the floor is near the oracles."""
FARTHER = 1.1
"""So many times as far is clearly farther."""
TOLERATED = 0.02
"""Loss of accuracy that is none."""
FEW = 20
"""Fewer models than this say little."""
BENCHMARKS = (NOTHING, "oracle")
"""Methods that are there to compare with: one does nothing, the other is told the answer."""


@dataclass(frozen=True)
class Reading:
    """A method's audit in words.

    Attributes:
        grade: One of GRADES.
        summary: One or two sentences.
        caution: What else to know; empty where there is nothing.
    """

    grade: Grade
    summary: str
    caution: str


def reading(audited: Audit, method: str) -> Reading:
    """Judge a method. Raises KeyError where the audit is not of it."""
    one, nothing = audited.of(method), audited.of(NOTHING)
    floor = audited.floor["forget"].mean
    mine, was = one.forget.at_half.mean, nothing.forget.at_half.mean
    harmed = [part for part in PARTS if part != "forget" and harms(audited, one, part)]
    cautions = []
    if audited.models < FEW:
        cautions.append(f"{audited.models} models say little: 50 say more.")
    if was.low <= floor.high and not harmed:
        words = (
            "Models that saw these examples say of them what retrained ones do: doing nothing has "
            f"KLoM {number(was.mean)}, retrained ones among themselves {number(floor.mean)}."
        )
        return Reading("idle", words, " ".join(cautions))
    if mine.high < floor.low:
        cautions.append(
            "Nearer than retrained models are to each other: KLoM also falls where models agree "
            "too much, or a few are so far off that its bins tell the others no longer apart."
        )
    times = f"{mine.mean / floor.mean:.1f} times" if floor.mean > 0 else "many times"
    words = (
        f"{TITLES[method][0]}: models come to lie {times} as far from retrained ones, on what is "
        f"forgotten, as those from each other (KLoM {number(mine.mean)}; retrained ones among "
        f"themselves {number(floor.mean)}; doing nothing {number(was.mean)})"
    )
    better = mine.high < was.low
    grade: Grade = "no"
    if better and harmed:
        grade = "harm"
    elif better:
        grade = "good" if mine.mean <= NEAR * floor.mean else "part"
    if harmed:
        words += f"; they are worse than before on {' and on '.join(map(_name, harmed))}"
    elif better:
        words += "; what is kept does not suffer"
    else:
        words += "; beyond chance that is no nearer than doing nothing"
    cost = f"{one.cost_share:.1%} of a retraining a model"
    if one.once_share:
        cost += f", and {one.once_share:.1%} once for all"
    return Reading(grade, f"{words}. It took {cost}.", " ".join(cautions))


def harms(audited: Audit, one: MethodAudit, part: Part) -> bool:
    """Whether a method leaves a part clearly farther from the oracles than nothing does and they
    are from each other, or less accurate than both."""
    mine, was = getattr(one, part), getattr(audited.of(NOTHING), part)
    far, before = mine.at_half.mean, was.at_half.mean
    farther = far.mean > FARTHER * max(before.mean, audited.floor[part].mean.mean)
    accurate = min(was.accuracy, mine.oracle_accuracy) - TOLERATED
    return bool((farther and far.low > before.high) or mine.accuracy < accurate)


def best(audited: Audit) -> str:
    """The method to show first: nearest to the oracles on what is forgotten, and harmless if it can
    be."""
    rivals: Sequence[MethodAudit] = [
        one for one in audited.methods if one.method not in BENCHMARKS
    ] or audited.methods

    def order(one: MethodAudit) -> tuple[int, float]:
        harmed = sum(harms(audited, one, part) for part in PARTS if part != "forget")
        return harmed, float(one.forget.at_half.mean.mean)

    return min(rivals, key=order).method


def _name(part: Part) -> str:
    return {
        "forget": "what is forgotten",
        "retain": "what is kept",
        "test": "test examples",
    }[part]
