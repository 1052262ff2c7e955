"""The job of the queue that audits unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.checks import MODELS_DEFAULT, check_audit
from engine.applications.unlearning.klom import DIRECTION
from engine.applications.unlearning.rows import forget_set
from engine.applications.unlearning.settings import BUDGET
from engine.applications.unlearning.sources import best_source
from engine.running.jobs.parameters import complete
from engine.running.progress import Report
from engine.study.reader import StudyReader


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `audit`."""
    defaults: dict[str, Any] = {"forget": [], "methods": ["matching"]}
    defaults |= {"models": MODELS_DEFAULT, "budget": BUDGET, "algorithm": None}
    defaults |= {"direction": DIRECTION, "source": None, "device": "auto", "workers": None}
    request = complete(defaults, parameters)
    algorithm = check_audit(
        study,
        request["algorithm"],
        request["methods"],
        request["models"],
        request["budget"],
        request["source"],
    )
    return request | {
        "forget": list(forget_set(study, request["forget"])),
        "algorithm": algorithm,
        "source": request["source"] or best_source(study, algorithm),
    }


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run an audit; `parameters` are the arguments of `audit`. The result names it."""
    found = audit(study, report=report, **parameters)
    return {
        "audit": found.id,
        "algorithm": found.algorithm,
        "forget": len(found.forget),
        "klom_forget": {one.method: one.forget.klom.mean.mean for one in found.methods},
        "floor_forget": found.floor["forget"].mean.mean,
    }
