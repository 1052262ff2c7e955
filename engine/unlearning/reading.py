"""What an audit says of a method, in a plain sentence that follows from its figures.

Models are compared with the floor, half against half. The rules are few and stand in
docs/unlearning.md too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.quality import Measured
from engine.trust import number
from engine.unlearning.audit import NOTHING, PARTS, Audit, MethodAudit, Part
from engine.unlearning.hyper import TITLES

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
    caution = ""
    if audited.models < FEW:
        caution = f"{audited.models} models say little: 50 say more."
    against = f"KLoM {_said(mine)}; retrained ones among themselves {_said(floor)}"
    if was.low <= floor.high and not harmed:
        words = (
            "Models that saw these examples say of them what retrained ones do: doing nothing has "
            f"KLoM {_said(was)}, retrained ones among themselves {_said(floor)}."
        )
        return Reading("idle", words, caution)
    times = f"{mine.mean / floor.mean:.1f} times" if floor.mean > 0 else "many times"
    name = TITLES[method][0]
    words = (
        f"By {name} models come to lie {times} as far from retrained ones, on what is forgotten, "
        f"as those from each other ({against}; doing nothing {_said(was)})"
    )
    better = mine.high < was.low
    grade: Grade = "no"
    if better and harmed:
        grade = "harm"
    elif better:
        grade = "good" if mine.mean <= NEAR * floor.mean else "part"
    if harmed:
        words += f", and are farther than before on {_names(harmed)}"
    elif better:
        words += ", and what is kept suffers no more than chance"
    cost = f"{one.cost_share:.1%} of a retraining a model"
    if one.once_share:
        cost += f", and {one.once_share:.1%} once for all"
    return Reading(grade, f"{words}. It took {cost}.", caution)


def harms(audited: Audit, one: MethodAudit, part: Part) -> bool:
    """Whether a method leaves a part farther from the oracles than nothing does, beyond chance."""
    nothing = audited.of(NOTHING)
    mine, was = (getattr(each, part).at_half.mean for each in (one, nothing))
    return bool(mine.low > was.high)


def best(audited: Audit) -> str:
    """The method to show first: nearest to the oracles on all parts together."""
    rivals: Sequence[MethodAudit] = [
        one for one in audited.methods if one.method not in BENCHMARKS
    ] or audited.methods

    def distance(one: MethodAudit) -> float:
        return sum(float(getattr(one, part).at_half.mean.mean) for part in PARTS)

    return min(rivals, key=distance).method


def _said(found: Measured) -> str:
    return number(found.mean)


def _names(parts: Sequence[Part]) -> str:
    words = {"forget": "what is forgotten", "retain": "other training examples", "test": "test"}
    named = [f"{words[part]} examples" if part == "test" else words[part] for part in parts]
    return " and ".join(named)
