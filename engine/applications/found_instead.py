"""What a pair's picture or caption finds among the test pairs instead of its own."""

from __future__ import annotations

from dataclasses import dataclass

from engine.store.records import View
from engine.study.models import read_mean_records
from engine.study.reader import StudyReader
from engine.tasks.outcomes import RETRIEVAL


@dataclass(frozen=True)
class Found:
    """The part of another pair that fits better than the own one.

    Attributes:
        part: What is found: the `text` of a test pair, or its `picture`.
        row: Of that test pair.
        own, other: Mean cosines with the own part, and with what is found instead.
    """

    part: View
    row: int
    own: float
    other: float


def found_instead(study: StudyReader, row: int, algorithm: str) -> list[Found]:
    """What the picture of a test pair finds instead of its caption, then what the caption finds
    instead of its picture; empty where both find their own."""
    record = read_mean_records(study, "test", algorithm, slice(row, row + 1))[RETRIEVAL.record][0]
    parts: tuple[View, View] = ("text", "picture")
    return [
        Found(part, int(cosines.argmax()) - 1, float(cosines[0]), float(cosines.max()))
        for part, cosines in zip(parts, record, strict=True)
        if cosines.argmax()
    ]
