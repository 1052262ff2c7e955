"""The job of the queue that verifies a removal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.applications.verification.verifying import check, request_of, verify
from engine.running.jobs.parameters import complete
from engine.running.progress import Report
from engine.study.reader import StudyReader


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `verify`."""
    defaults: dict[str, Any] = {"removed": [], "tests": [], "seeds": 5, "algorithm": None}
    defaults |= {"method": None, "control": False, "device": "auto", "workers": None}
    request = complete(defaults, parameters)
    checked = request_of(study, request["removed"], request["tests"])
    algorithm, method = check(study, request["algorithm"], request["method"], request["seeds"])
    return request | {
        "removed": list(checked.removed),
        "tests": list(checked.tests),
        "algorithm": algorithm,
        "method": method,
    }


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Verify a removal; `parameters` are the arguments of `verify`. The result names it."""
    found = verify(study, report=report, **parameters)
    return {
        "verification": found.id,
        "algorithm": found.algorithm,
        "removed": len(found.removed),
        "flipped": sum(outcome.flipped for outcome in found.outcomes),
        "tests": len(found.outcomes),
    }
