"""Kinds of jobs: what each runs, and what it may be asked.

A kind names its functions, so that a server can offer it without importing torch:

    def check(study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]
        Give the parameters with all defaults filled in, as JSON can hold them, or raise a
        DataloupeError. Called before a job is stored, in the server; imports nothing heavy.

    def run(study: StudyReader, parameters: dict[str, Any], report: Report) -> dict[str, Any]
        Do the work, in a process of its own, and give a result that JSON can hold. What is there
        already is not made again, as a job that was interrupted is run once more from its start.
        `report(done, total, what)` says how far it is. On SIGTERM it is a KeyboardInterrupt.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.store.errors import DataloupeError

if TYPE_CHECKING:
    from engine.study.reader import StudyReader

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        title: For people; what a job is called that has no title of its own.
        check: `module:function`, see above.
        run: `module:function`, see above.
    """

    title: str
    check: str
    run: str

    def checked(self, study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters, complete. Raises DataloupeError where they cannot be."""
        found: dict[str, Any] = _load(self.check)(study, parameters)
        return found

    def work(
        self, study: StudyReader, parameters: dict[str, Any], report: Report
    ) -> dict[str, Any]:
        """Do the work."""
        result: dict[str, Any] = _load(self.run)(study, parameters, report)
        return result


KINDS: dict[str, Kind] = {
    "build": Kind("Build the study", "engine.build.job:check", "engine.build.job:run"),
    "verify": Kind(
        "Verify a removal",
        "engine.applications.verification:check_job",
        "engine.applications.verification:run_job",
    ),
    "brittle": Kind(
        "Verify predictions",
        "engine.applications.brittle.supports:check_job",
        "engine.applications.brittle.supports:run_job",
    ),
    "unlearn": Kind(
        "Audit unlearning",
        "engine.applications.unlearning.audit:check_job",
        "engine.applications.unlearning.audit:run_job",
    ),
    "foretell": Kind(
        "Foretell forgetting",
        "engine.applications.unlearning.predicted_effect:check_job",
        "engine.applications.unlearning.predicted_effect:run_job",
    ),
    "certify": Kind(
        "Make an unlearned model",
        "engine.applications.unlearning.certificate:check_job",
        "engine.applications.unlearning.certificate:run_job",
    ),
    "compare": Kind(
        "Compare algorithms",
        "engine.applications.modeldiff.job:check_job",
        "engine.applications.modeldiff.job:run_job",
    ),
    "hypothesis": Kind(
        "Test a hypothesis",
        "engine.applications.modeldiff.job:check_hypothesis",
        "engine.applications.modeldiff.job:run_hypothesis",
    ),
}


def kind(name: str) -> Kind:
    """The kind of this name. Raises DataloupeError where there is none."""
    if name not in KINDS:
        raise DataloupeError(f"There is no kind of job {name!r}; there are {', '.join(KINDS)}.")
    return KINDS[name]


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
