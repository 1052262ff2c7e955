"""The registry of job kinds: which functions check a job's parameters and run it.

The functions belong to packages above this one (`engine.build.build`, `engine.applications`).
`KINDS` therefore names them by strings, `module:function`, like entry points. The queue imports
none of these packages: a module is imported only when a job of its kind is submitted or run, so a
server can offer every kind without importing torch.

    def check(study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]
        Return the parameters with all defaults filled in, as JSON values, or raise a
        DataloupeError. Runs in the server before the job is stored, so its module must import
        nothing heavy.

    def run(study: StudyReader, parameters: dict[str, Any], report: Report) -> dict[str, Any]
        Run the job in a separate process and return its result as JSON values. An interrupted job
        is run again from the start, so `run` must skip what already exists.
        `report(done, total, what)` records progress. SIGTERM raises KeyboardInterrupt.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine import store
from engine.running.progress import Report
from engine.store.errors import DataloupeError
from engine.study.trust import require_trust

if TYPE_CHECKING:
    from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        title: Default title of its jobs.
        check: `module:function` that checks the parameters; see the module's docstring.
        run: `module:function` that runs the job; see the module's docstring.
    """

    title: str
    check: str
    run: str

    def checked(self, study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters with defaults. Raises DataloupeError if they are invalid, or if the
        study names code that is not trusted: then no job of it can run."""
        require_trust(study)
        found: dict[str, Any] = _load(self.check)(study, parameters)
        return found

    def work(
        self, study: StudyReader, parameters: dict[str, Any], report: Report
    ) -> dict[str, Any]:
        """Run a job with checked parameters and return its result.

        First, temporary files that killed jobs left are removed. The queue may hold jobs from
        before the code that the study names changed, so trust is checked here, too.
        """
        require_trust(study)
        store.remove_leftovers(study.root)
        result: dict[str, Any] = _load(self.run)(study, parameters, report)
        return result


KINDS: dict[str, Kind] = {
    "build": Kind("Build the study", "engine.build.job:check", "engine.build.job:run"),
    "verify": Kind(
        "Verify a removal",
        "engine.applications.verification.job:check_job",
        "engine.applications.verification.job:run_job",
    ),
    "brittle": Kind(
        "Verify predictions",
        "engine.applications.brittle.job:check_job",
        "engine.applications.brittle.job:run_job",
    ),
    "replay": Kind(
        "Compute exact scores",
        "engine.applications.replay.answer:check_job",
        "engine.applications.replay.answer:run_job",
    ),
    "unlearn": Kind(
        "Audit unlearning",
        "engine.applications.unlearning.audit_job:check_job",
        "engine.applications.unlearning.audit_job:run_job",
    ),
    "predict": Kind(
        "Predict forgetting",
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
    """Return the kind with this name. Raises DataloupeError if there is none."""
    if name not in KINDS:
        raise DataloupeError(f"There is no job kind {name!r}; kinds are {', '.join(KINDS)}.")
    return KINDS[name]


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
