"""Findings: what was found in the data and the predictions, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from dashboard.api.answer import Answer
from dashboard.api.head import Head, head
from dashboard.api.query import Query
from dashboard.location import Location
from dashboard.read.findings import TITLES, Finding, found_by
from dashboard.slice_parameters import Slice
from dashboard.workspaces import ADDRESSES


@dataclass(frozen=True, kw_only=True)
class Found:
    """One finding.

    Attributes:
        about: What was looked for, such as `suspect-labels`.
        count: How many there are; null if that cannot be told: `evidence` says what is missing.
        title: What was counted, as the end of a sentence that starts with the count.
        evidence: The strongest case.
        reliability: How far to trust the count.
        action: What to do about it; empty for nothing.
        page: Address of the page where that is done, relative to the study's; its query is also
            that of the page's twin. Null for none.
    """

    about: str
    count: int | None
    title: str
    evidence: str
    reliability: str
    action: str
    page: str | None


@dataclass(frozen=True, kw_only=True)
class Findings(Head):
    """What was found in the data and the predictions, each counted, with what to do about it."""

    findings: list[Found]


def answer(query: Query) -> Answer:
    """Every finding of Overview, without those that the study's task cannot have."""
    study, location = query.study, query.location.of_slice(Slice())
    return Answer(
        Findings(
            **head(query),
            findings=[
                _found(finder.__name__, one, location)
                for finder in TITLES
                if (one := found_by(finder, study, location)) is not None
            ],
        )
    )


def _found(name: str, one: Finding, location: Location) -> Found:
    query = urlencode(location.parameters(**one.parameters))
    return Found(
        about=name.replace("_", "-"),
        count=one.count,
        title=one.title,
        evidence=one.evidence,
        reliability=one.reliability,
        action=one.action,
        page=f"{ADDRESSES[one.page]}?{query}" if one.page else None,
    )
