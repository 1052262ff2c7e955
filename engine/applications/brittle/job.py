"""The job of the queue that verifies data support by retraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.applications.brittle.exact_support import exact_requests
from engine.applications.brittle.supports import (
    AT_MOST,
    PROBABILITY,
    Supports,
    find,
    requests,
)
from engine.applications.verification.verifying import Request, check, verify_all
from engine.running.jobs.parameters import complete
from engine.running.progress import Report
from engine.store.errors import DataloupeError
from engine.study.names import resolve_rows
from engine.study.reader import StudyReader


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `verify_brittle`.

    With `exact`, removal sets are those found by replay instead of by scores.
    """
    defaults: dict[str, Any] = {"tests": [], "at_most": AT_MOST, "seeds": 5, "algorithm": None}
    defaults |= {"probability": PROBABILITY, "method": None, "device": "auto", "workers": None}
    defaults |= {"exact": False}
    request = complete(defaults, parameters)
    algorithm, method = check(study, request["algorithm"], request["method"], request["seeds"])
    tests = resolve_rows(study, "test", request["tests"]).tolist()
    if not tests:
        raise DataloupeError("Name at least one prediction to verify.")
    supports = find(study, algorithm, method, request["at_most"], request["probability"])
    _requests(study, supports, tests, request["exact"])
    return request | {"tests": tests, "algorithm": algorithm, "method": method}


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run as a job of the queue: verify predictions by their removal sets.

    Args:
        parameters: From `check_job`.
    """
    arguments = dict(parameters)
    tests = arguments.pop("tests")
    named = ("algorithm", "method", "at_most", "probability")
    supports = find(study, *(arguments.pop(name) for name in named))
    wanted = _requests(study, supports, tests, arguments.pop("exact"))
    method = supports.method
    found = verify_all(
        study, wanted, algorithm=supports.algorithm, method=method, report=report, **arguments
    )
    flipped = sum(one.outcomes[0].flipped for one in found)
    return {"verifications": [one.id for one in found], "tests": len(found), "flipped": flipped}


def _requests(
    study: StudyReader, supports: Supports, tests: list[int], exact: bool
) -> list[Request]:
    return (exact_requests if exact else requests)(study, supports, tests)
