"""Jobs: long-running work, with its progress and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dashboard.api.answer import Answer
from dashboard.api.head import Head, head_of
from dashboard.api.query import Query, built
from engine.running.jobs.queue import jobs

SHOWN = 50
"""As many as the page shows."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job.

    Attributes:
        id: Its number.
        kind, title: What it does.
        parameters: All of them, including defaults.
        status: `waiting`, `running`, `done`, `failed` or `cancelled`.
        done, total: Progress in steps; both 0 until the first report.
        doing: The current step.
        submitted, started, ended: Seconds since 1970; null if that has not happened.
        seconds_left: Estimate; null if unknown.
        error: Why it failed; empty if it did not.
        result: What it found.
    """

    id: int
    kind: str
    title: str
    parameters: dict[str, Any]
    status: str
    done: int
    total: int
    doing: str
    submitted: float
    started: float | None
    ended: float | None
    seconds_left: float | None
    error: str
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Jobs(Head):
    """The newest jobs, the latest first."""

    jobs: list[Job]


def answer(query: Query) -> Answer:
    """The newest jobs. Who submitted them is on the page only."""
    study = query.study
    found = jobs(study.root, newest=SHOWN)
    return Answer(
        Jobs(
            **head_of(study, *built(query)),
            jobs=[
                Job(
                    id=one.id,
                    kind=one.kind,
                    title=one.title,
                    parameters=one.parameters,
                    status=one.status,
                    done=one.done,
                    total=one.total,
                    doing=one.what,
                    submitted=one.submitted,
                    started=one.started,
                    ended=one.ended,
                    seconds_left=one.seconds_left,
                    error=one.error,
                    result=one.result,
                )
                for one in sorted(found, key=lambda one: -one.id)
            ],
        )
    )
